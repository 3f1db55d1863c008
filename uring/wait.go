package uring

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawBulk is the number of bytes up to which a submission is made without
// telling the Go scheduler (RawSyscall): page-cached data is copied during the
// submission itself, at ~10 GB/s, so this bounds how long the garbage collector
// can be kept waiting to ~25 us.
const rawBulk = 256 << 10

// Completion is the end of one operation, or one event of a Poll.
type Completion struct {
	User uint64
	// Res is the operation's result, or minus an errno.
	Res int32
	// Last is unset while a multishot poll goes on.
	Last bool
}

// Err returns the errno in Res, or nil.
func (c Completion) Err() error {
	if c.Res < 0 {
		return unix.Errno(-c.Res)
	}
	return nil
}

// Submit hands the prepared operations to the kernel and does not wait. What
// the kernel could not take yet (EAGAIN, EBUSY) stays queued for the next call.
func (r *Ring) Submit() error {
	if r.queued == 0 {
		return nil
	}
	return r.enter(0, 0, r.bulk <= rawBulk)
}

// Wait submits what is prepared and blocks until at least n completions are
// ready to Reap, a signal arrived, or Wake was called: the caller looks and
// waits again.
//
// On a polled ring Wake ends a Wait only while no operation is in flight: else
// the thread polls in the kernel until the first of them completes.
func (r *Ring) Wait(n int) error {
	if r.polled != nil {
		return r.waitPolled(n)
	}
	if !r.wakeArmed {
		if r.wakeArmed = r.Poll(r.wakeFD, wakeUser); !r.wakeArmed {
			if err := r.Submit(); err != nil { // the ring was full
				return err
			}
			r.wakeArmed = r.Poll(r.wakeFD, wakeUser)
		}
	}
	return r.enter(uint32(n), enterGetEvents, n == 0 && r.bulk <= rawBulk)
}

// enter is the one place that calls io_uring_enter. raw skips the scheduler's
// bookkeeping (about 60 ns) and is only for calls that cannot block.
func (r *Ring) enter(minComplete, flags uint32, raw bool) error {
	if r.disabled {
		if errno := r.register(registerEnableRings, nil, 0); errno != 0 {
			return fmt.Errorf("io_uring: enable the ring: %w", errno)
		}
		r.disabled = false
	}
	atomic.StoreUint32(r.sqTail, r.tail)
	var n uintptr
	var errno unix.Errno
	if raw {
		n, _, errno = unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued), uintptr(minComplete), uintptr(flags), 0, 0)
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.queued), uintptr(minComplete), uintptr(flags), 0, 0)
	}
	switch errno {
	case 0:
		r.queued -= uint32(n)
		if r.queued == 0 {
			r.iovUsed, r.bulk, r.anchor = 0, 0, nil
		}
		return nil
	case unix.EINTR, unix.EAGAIN, unix.EBUSY:
		return nil
	case unix.EEXIST:
		return ErrWrongThread
	}
	return fmt.Errorf("io_uring: enter: %w", errno)
}

// Reap copies completions that are ready into dst, without waiting.
func (r *Ring) Reap(dst []Completion) (int, error) {
	if r.polled != nil {
		return r.reapPolled(dst)
	}
	n := r.take(dst)
	if n == 0 && len(dst) > 0 && atomic.LoadUint32(r.sqFlags)&(sqCQOverflow|sqTaskrun) != 0 {
		if err := r.enter(0, enterGetEvents, true); err != nil {
			return 0, err
		}
		n = r.take(dst)
	}
	return n, nil
}

func (r *Ring) take(dst []Completion) int {
	head, tail := atomic.LoadUint32(r.cqHead), atomic.LoadUint32(r.cqTail)
	n := 0
	for ; head != tail && n < len(dst); head++ {
		c := (*cqe)(unsafe.Add(r.cqeBase, uintptr(head&r.cqMask)*unsafe.Sizeof(cqe{})))
		if c.userData&ownUser != 0 {
			r.own(c)
			continue
		}
		dst[n] = Completion{User: c.userData, Res: c.res, Last: c.flags&cqeFMore == 0}
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	if r.polled != nil {
		r.inflight -= n
	}
	return n
}

// own handles the completions of the ring's own operations.
func (r *Ring) own(c *cqe) {
	if c.userData == wakeUser && c.flags&cqeFMore == 0 {
		r.wakeArmed = false
	}
}

// Wake makes a Wait that is running, or the next one, return. It may be called
// from any goroutine, even after Close, when it does nothing.
func (r *Ring) Wake() {
	r.wakeMu.Lock()
	defer r.wakeMu.Unlock()
	if r.closed {
		return // the descriptor's number may be another file's by now
	}
	// The counter is never read, since the poll is edge triggered.
	_, _ = unix.Write(r.wakeFD, wakeCount)
}

// wakeCount is the number 1 as eventfd(2) takes it; it overflows after 2^64-2 calls.
var wakeCount = binary.NativeEndian.AppendUint64(nil, 1)

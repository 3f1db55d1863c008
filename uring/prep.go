package uring

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Target is the file of an operation: a descriptor, or with Fixed the index of
// one registered by RegisterFiles.
type Target struct {
	FD    int
	Fixed bool
}

// The prepare methods queue one operation and return false when there is no
// room before the next Submit. user comes back in the Completion; values with
// the top bit set are the ring's own.

// ownUser marks the ring's own operations.
const ownUser = uint64(1) << 63

const (
	wakeUser   = ownUser
	cancelUser = ownUser | 1
)

// next returns the next submission entry, blank, or nil when the ring is full.
func (r *Ring) next(op opcode, t Target, user uint64) *sqe {
	if r.tail-atomic.LoadUint32(r.sqHead) >= r.entries {
		return nil
	}
	e := (*sqe)(unsafe.Add(r.sqeBase, uintptr(r.tail&r.sqMask)*unsafe.Sizeof(sqe{})))
	*e = sqe{opcode: op, fd: int32(t.FD), userData: user}
	if t.Fixed {
		e.flags = sqeFixedFile
	}
	r.tail++
	r.queued++
	if r.polled != nil {
		r.inflight++
	}
	return e
}

func (r *Ring) prepRW(op opcode, t Target, p []byte, off int64, rwf int, user uint64) *sqe {
	e := r.next(op, t, user)
	if e == nil {
		return nil
	}
	r.anchor = p
	e.addr, e.len = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))), uint32(len(p))
	e.off, e.opFlags = uint64(off), uint32(rwf)
	r.bulk += len(p)
	return e
}

// Read queues a read of len(p) bytes (below 2 GiB) at off; rwf are RWF_* flags.
func (r *Ring) Read(t Target, p []byte, off int64, rwf int, user uint64) bool {
	return r.prepRW(opRead, t, p, off, rwf, user) != nil
}

// Write queues a write of p at off.
func (r *Ring) Write(t Target, p []byte, off int64, rwf int, user uint64) bool {
	return r.prepRW(opWrite, t, p, off, rwf, user) != nil
}

// ReadFixed is Read into memory inside registered buffer buf.
func (r *Ring) ReadFixed(t Target, p []byte, buf int, off int64, rwf int, user uint64) bool {
	e := r.prepRW(opReadFixed, t, p, off, rwf, user)
	if e != nil {
		e.bufIndex = uint16(buf)
	}
	return e != nil
}

// WriteFixed is Write from memory inside registered buffer buf.
func (r *Ring) WriteFixed(t Target, p []byte, buf int, off int64, rwf int, user uint64) bool {
	e := r.prepRW(opWriteFixed, t, p, off, rwf, user)
	if e != nil {
		e.bufIndex = uint16(buf)
	}
	return e != nil
}

// Readv queues a scattering read into at most MaxIovecs buffers.
func (r *Ring) Readv(t Target, vec [][]byte, off int64, rwf int, user uint64) bool {
	return r.prepVec(opReadv, t, vec, off, rwf, user)
}

// Writev queues a gathering write from at most MaxIovecs buffers.
func (r *Ring) Writev(t Target, vec [][]byte, off int64, rwf int, user uint64) bool {
	return r.prepVec(opWritev, t, vec, off, rwf, user)
}

func (r *Ring) prepVec(op opcode, t Target, vec [][]byte, off int64, rwf int, user uint64) bool {
	if len(vec) > MaxIovecs || r.iovUsed+len(vec) > iovArena {
		return false
	}
	e := r.next(op, t, user)
	if e == nil {
		return false
	}
	iov := unsafe.Slice((*unix.Iovec)(r.iovBase), iovArena)[r.iovUsed : r.iovUsed+len(vec)]
	r.iovUsed += len(vec)
	for i, p := range vec {
		r.anchor = p
		// The arena is not Go memory, so no pointer is stored where the collector
		// would look for one.
		*(*uintptr)(unsafe.Pointer(&iov[i].Base)) = uintptr(unsafe.Pointer(unsafe.SliceData(p)))
		iov[i].SetLen(len(p))
		r.bulk += len(p)
	}
	e.addr, e.len = uint64(uintptr(unsafe.Pointer(unsafe.SliceData(iov)))), uint32(len(vec))
	e.off, e.opFlags = uint64(off), uint32(rwf)
	return true
}

// Fsync queues an fsync, or an fdatasync with dataOnly. It is not ordered
// against operations in flight.
func (r *Ring) Fsync(t Target, dataOnly bool, user uint64) bool {
	e := r.next(opFsync, t, user)
	if e != nil && dataOnly {
		e.opFlags = fsyncData
	}
	return e != nil
}

// Fallocate queues fallocate(2).
func (r *Ring) Fallocate(t Target, mode uint32, off, n int64, user uint64) bool {
	e := r.next(opFallocate, t, user)
	if e != nil {
		e.off, e.addr, e.len = uint64(off), uint64(n), mode
	}
	return e != nil
}

// Poll queues a multishot poll for readability: a completion with Poll set for
// each time fd becomes readable (once at first if it already is). It is edge
// triggered: read fd until it is empty. When a completion has Last set, the
// poll has ended and may be queued again.
func (r *Ring) Poll(fd int, user uint64) bool {
	if r.polled != nil {
		r.watch(fd, user)
		return true
	}
	e := r.next(opPollAdd, Target{FD: fd}, user)
	if e != nil {
		e.len, e.opFlags = pollAddMulti, unix.POLLIN
	}
	return e != nil
}

// Cancel queues the cancellation of an operation that was submitted with user.
// The operation still completes, with ECANCELED if it was stopped in time. On a
// polled ring nothing can be cancelled.
func (r *Ring) Cancel(user uint64) bool {
	if r.polled != nil {
		return true
	}
	e := r.next(opAsyncCancel, Target{FD: -1}, cancelUser)
	if e != nil {
		e.addr = user
	}
	return e != nil
}

package uring

import (
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pread2 is preadv2(2) with one buffer. It allocates nothing, does not retry,
// and stays on the thread without telling the scheduler when rwf contains
// RWF_NOWAIT, since the call cannot block then.
func Pread2(fd int, p []byte, off int64, rwf int) (int, error) {
	return rw2(unix.SYS_PREADV2, fd, p, off, rwf)
}

// Pwrite2 is pwritev2(2) with one buffer, like Pread2.
func Pwrite2(fd int, p []byte, off int64, rwf int) (int, error) {
	return rw2(unix.SYS_PWRITEV2, fd, p, off, rwf)
}

// rw2 passes the offset in the low word alone, as 64-bit kernels want it.
func rw2(trap uintptr, fd int, p []byte, off int64, rwf int) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	var n uintptr
	var errno unix.Errno
	if rwf&unix.RWF_NOWAIT != 0 && len(p) <= rawBulk {
		n, _, errno = unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, uintptr(rwf))
	} else {
		n, _, errno = unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, uintptr(rwf))
	}
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// RecvNow is recv(2) of what has arrived at a socket, rawBulk bytes at most; EAGAIN
// tells that there is nothing. It stays on the thread without telling the scheduler.
func RecvNow(fd int, p []byte) (int, error) {
	p = p[:min(len(p), rawBulk)]
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Unsent is what SIOCOUTQ tells of a socket, in bytes: 0 where it tells nothing. On a
// unix socket that is what the peer has not read, as the kernel counts it.
func Unsent(fd int) int {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		return 0
	}
	return int(n)
}

// Nap sleeps for d, at most a few dozen microseconds, on the thread and without telling
// the scheduler. Without a timer slack of 1 ns a sleep takes 50 us longer than asked
// for; the slack is the thread's, which may be another goroutine's next time.
func Nap(d time.Duration) {
	_, _, _ = unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, 1, 0)
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// MaxWritev is how many buffers Writev takes.
const MaxWritev = 64

// Writev is writev(2) of at most MaxWritev buffers, without retries. It allocates
// nothing, as x/sys's does beyond eight.
func Writev(fd int, vec [][]byte) (int, error) {
	if len(vec) > MaxWritev {
		return 0, unix.EINVAL
	}
	var iov [MaxWritev]unix.Iovec
	for i, p := range vec {
		iov[i].Base = unsafe.SliceData(p)
		iov[i].SetLen(len(p))
	}
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov)), uintptr(len(vec)))
	runtime.KeepAlive(vec)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// BlkZeroout is ioctl BLKZEROOUT: the range of a block device, in multiples of
// its logical sector, reads as zeros afterwards and stays allocated. The kernel
// falls back to writing by itself.
func BlkZeroout(fd int, off, n int64) error { return blkRange(fd, unix.BLKZEROOUT, off, n) }

// BlkDiscard is ioctl BLKDISCARD, which promises nothing of the content.
func BlkDiscard(fd int, off, n int64) error { return blkRange(fd, unix.BLKDISCARD, off, n) }

func blkRange(fd int, req uintptr, off, n int64) error {
	arg := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// BlkSize is ioctl BLKGETSIZE64: a block device's size in bytes.
func BlkSize(fd int) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}

// CopyByKernel copies src to dst, of equal length, by process_vm_writev(2) on
// this process itself: memory that has gone away (a guest's, unmapped or
// truncated) gives EFAULT where a copy in user space would be killed by a
// signal. It costs a system call.
func CopyByKernel(dst, src []byte) error {
	pid := os.Getpid()
	for len(src) > 0 {
		local := [1]unix.Iovec{{Base: unsafe.SliceData(src)}}
		local[0].SetLen(len(src))
		remote := [1]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(unsafe.SliceData(dst))), Len: len(dst)}}
		n, err := unix.ProcessVMWritev(pid, local[:], remote[:], 0)
		runtime.KeepAlive(dst)
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EFAULT
		}
		dst, src = dst[n:], src[n:]
	}
	return nil
}

// CanCopyByKernel reports whether CopyByKernel works in this process: kernels
// and seccomp filters may lack the call.
func CanCopyByKernel() bool { return canCopyOnce() }

var canCopyOnce = sync.OnceValue(func() bool {
	var dst [1]byte
	return CopyByKernel(dst[:], []byte{1}) == nil && dst[0] == 1
})

package uring

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxEntries is the largest submission queue New accepts (the kernel's own limit).
const MaxEntries = 32768

// iovArena is the number of iovecs that operations prepared but not yet
// submitted can hold together. The kernel copies them at submission
// (IORING_FEAT_SUBMIT_STABLE), so the space is free again after each Submit.
const iovArena = 4096

// MaxIovecs is the largest number of buffers of one vectored operation (the
// kernel's UIO_MAXIOV).
const MaxIovecs = 1024

// ErrWrongThread: the ring belongs to the thread of its first Submit or Wait.
var ErrWrongThread = errors.New("io_uring: used from another thread than its owner's (lock the goroutine to its thread)")

// Ring is a pair of submission and completion queues shared with the kernel.
type Ring struct {
	fd       int
	flags    uint32 // setup flags in force
	disabled bool   // set up with R_DISABLED and not yet enabled
	files    bool   // RegisterFiles was called

	ring []byte // both rings (IORING_FEAT_SINGLE_MMAP)
	sqes []byte
	iovs []byte

	sqHead, sqTail, sqFlags *uint32
	cqHead, cqTail          *uint32
	sqMask, cqMask, entries uint32
	tail                    uint32 // sqTail including prepared, unpublished entries
	queued                  uint32 // entries the kernel has not consumed yet
	sqeBase                 unsafe.Pointer
	cqeBase                 unsafe.Pointer
	iovBase                 unsafe.Pointer
	iovUsed                 int
	bulk                    int    // bytes the queued reads and writes move
	anchor                  []byte // last buffer prepared: makes callers' buffers escape to the heap

	wakeMu    sync.Mutex // keeps Wake and Close apart
	closed    bool
	wakeFD    int
	wakeArmed bool

	*polled // of a ring from NewPolled, else nil
}

// New sets up a ring for up to entries operations prepared at once (rounded up
// to a power of two) and a completion queue of four times that. The error says
// why io_uring cannot be used, as [Probe]'s does.
func New(entries int) (*Ring, error) { return newRing(entries, setupFlags) }

func newRing(entries int, ladder []uint32) (*Ring, error) {
	if entries < 1 || entries > MaxEntries {
		return nil, fmt.Errorf("io_uring: %d entries, must be 1 to %d", entries, MaxEntries)
	}
	r := &Ring{fd: -1, wakeFD: -1}
	var p params
	if err := r.setup(entries, ladder, &p); err != nil {
		return nil, err
	}
	if err := r.mapRings(&p); err != nil {
		r.Close()
		return nil, err
	}
	if err := r.checkOps(); err != nil {
		r.Close()
		return nil, err
	}
	efd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("io_uring: eventfd: %w", err)
	}
	r.wakeFD = efd
	return r, nil
}

// setupFlags are tried in turn, the fastest set first: older kernels answer
// EINVAL to those they do not know. R_DISABLED lets the ring be made on one
// thread and owned by another.
var setupFlags = []uint32{
	setupSubmitAll | setupSingleIssuer | setupDeferTaskrun | setupTaskrunFlag | setupRDisabled, // Linux 6.1
	setupSubmitAll | setupCoopTaskrun | setupTaskrunFlag,                                       // 5.19
	0,
}

func (r *Ring) setup(entries int, ladder []uint32, p *params) error {
	var errno unix.Errno
	for _, flags := range ladder {
		*p = params{flags: flags | setupClamp | setupCQSize, cqEntries: uint32(4 * entries)}
		var fd uintptr
		fd, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
		if errno == 0 {
			r.fd, r.flags, r.disabled = int(fd), p.flags, flags&setupRDisabled != 0
			return nil
		}
		if errno != unix.EINVAL {
			break
		}
	}
	return explain(errno)
}

func (r *Ring) mapRings(p *params) error {
	const want = featSingleMmap | featNoDrop | featSubmitStable
	if p.features&want != want {
		return fmt.Errorf("io_uring: kernel too old (features %#x, need %#x: Linux 5.6 or later)", p.features, want)
	}
	sqSize := int(p.sqOff.array + p.sqEntries*4)
	cqSize := int(p.cqOff.cqes + p.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	var err error
	if r.ring, err = mapRing(r.fd, offSQRing, max(sqSize, cqSize)); err != nil {
		return err
	}
	if r.sqes, err = mapRing(r.fd, offSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{}))); err != nil {
		return err
	}
	if r.iovs, err = Alloc(iovArena * int(unsafe.Sizeof(unix.Iovec{}))); err != nil {
		return err
	}
	base := unsafe.Pointer(&r.ring[0])
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Add(base, off)) }
	r.sqHead, r.sqTail, r.sqFlags = word(p.sqOff.head), word(p.sqOff.tail), word(p.sqOff.flags)
	r.cqHead, r.cqTail = word(p.cqOff.head), word(p.cqOff.tail)
	r.sqMask, r.cqMask = *word(p.sqOff.ringMask), *word(p.cqOff.ringMask)
	r.entries = p.sqEntries
	r.sqeBase, r.iovBase = unsafe.Pointer(&r.sqes[0]), unsafe.Pointer(&r.iovs[0])
	r.cqeBase = unsafe.Add(base, p.cqOff.cqes)
	for i := range p.sqEntries { // slot i always holds sqe i
		*word(p.sqOff.array + 4*i) = i
	}
	r.tail = atomic.LoadUint32(r.sqTail)
	return nil
}

func mapRing(fd int, off int64, size int) ([]byte, error) {
	b, err := unix.Mmap(fd, off, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("io_uring: map %d bytes of the ring: %w", size, err)
	}
	return b, nil
}

// checkOps makes sure, once, that the kernel knows every operation.
func (r *Ring) checkOps() error {
	var p probe
	if errno := r.register(registerProbe, unsafe.Pointer(&p), probeOps); errno != 0 {
		return fmt.Errorf("io_uring: ask for the kernel's operations: %w", errno)
	}
	for _, op := range needed {
		if int(op) >= int(p.opsLen) || p.ops[op].flags&probeSupported == 0 {
			return fmt.Errorf("io_uring: the kernel lacks operation %d", op)
		}
	}
	return nil
}

func (r *Ring) register(op uintptr, arg unsafe.Pointer, n int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), op, uintptr(arg), uintptr(n), 0, 0)
	return errno
}

// RegisterFiles makes fds usable as Target{Fixed: true, FD: index}, which saves
// a reference count per operation. Once per ring.
func (r *Ring) RegisterFiles(fds ...int) error {
	table := make([]int32, len(fds))
	for i, fd := range fds {
		table[i] = int32(fd)
	}
	if errno := r.register(registerFiles, unsafe.Pointer(unsafe.SliceData(table)), len(table)); errno != 0 {
		return fmt.Errorf("io_uring: register %d files: %w", len(fds), errno)
	}
	r.files = true
	return nil
}

// RegisterBuffers pins mem for ReadFixed and WriteFixed: once per ring, at most
// 1 GiB each, within RLIMIT_MEMLOCK. The memory must outlive the ring.
func (r *Ring) RegisterBuffers(mem [][]byte) error {
	table := make([]unix.Iovec, len(mem))
	for i, m := range mem {
		if len(m) == 0 {
			return fmt.Errorf("io_uring: register buffers: buffer %d is empty", i)
		}
		table[i].Base = &m[0]
		table[i].SetLen(len(m))
	}
	errno := r.register(registerBuffers, unsafe.Pointer(unsafe.SliceData(table)), len(table))
	runtime.KeepAlive(mem)
	if errno == unix.ENOMEM {
		return fmt.Errorf("io_uring: register %d buffers: %w (raise RLIMIT_MEMLOCK)", len(mem), errno)
	}
	if errno != 0 {
		return fmt.Errorf("io_uring: register %d buffers: %w", len(mem), errno)
	}
	return nil
}

// Close ends the ring. The caller has reaped every operation that uses memory:
// the kernel may still write to the buffers of those in flight.
func (r *Ring) Close() {
	r.wakeMu.Lock()
	r.closed = true
	r.wakeMu.Unlock()
	// The kernel tears a closed ring down later, from a worker; registered files
	// stay open until then, and with them their locks and a device's O_EXCL.
	if r.files {
		r.register(unregisterFiles, nil, 0)
	}
	for _, fd := range []int{r.fd, r.wakeFD} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is written back through it
		}
	}
	r.polled.close()
	for _, m := range [][]byte{r.ring, r.sqes, r.iovs} {
		if m != nil {
			Free(m)
		}
	}
	r.fd, r.wakeFD, r.ring, r.sqes, r.iovs = -1, -1, nil, nil, nil
}

package file

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// flusher makes sure that a lost write is told to everybody. When the kernel
// cannot write a page back, it says so once to each open file description: to
// whichever call on it syncs next. Measured: after a failed RWF_DSYNC write
// fdatasync succeeds, and of eight fdatasync at one time one fails. So flushes
// have a description that nothing else uses, go one by one, and their first error
// stays. Those that wait for their turn together share one fdatasync.
type flusher struct {
	fd    int
	asked atomic.Uint64
	mu    sync.Mutex
	done  uint64 // flushes up to this one are covered
	err   error
}

// open gives the flusher a description of the file behind fd.
func (f *flusher) open(fd int) (err error) {
	f.fd, err = openFD(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC)
	return err
}

// sync makes completed writes durable.
func (f *flusher) sync() error {
	mine := f.asked.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.done >= mine {
		return f.err
	}
	covered := f.asked.Load()
	for {
		err := unix.Fdatasync(f.fd)
		if err == unix.EINTR {
			continue
		}
		if f.err = err; err == nil {
			f.done = covered
		}
		return err
	}
}

package diskcopy

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mapMemory gives page-aligned memory outside the heap, as O_DIRECT wants it;
// pages never written cost nothing.
func mapMemory(n int64) ([]byte, error) {
	p, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("cannot get %d bytes of memory for buffers, use a smaller queue depth or request size: %w", n, err)
	}
	return p, nil
}

// unmapMemory gives back what mapMemory gave.
func unmapMemory(p []byte) {
	if p != nil {
		_ = unix.Munmap(p) // cannot fail on a mapping of ours
	}
}

// readers runs n workers of a comparison or a checksum, each with a buffer of
// size bytes, until all have returned; the first error is returned.
type readers struct {
	mu   sync.Mutex
	wake sync.Cond // on mu
	err  error
	done atomic.Int64
}

func (r *readers) run(n int, size int64, work func(buf []byte) error) error {
	r.wake.L = &r.mu
	mem, err := mapMemory(int64(n) * size)
	if err != nil {
		return err
	}
	defer unmapMemory(mem)
	var wg sync.WaitGroup
	for i := range int64(n) {
		wg.Go(func() {
			if err := work(mem[i*size : (i+1)*size : (i+1)*size]); err != nil {
				r.fail(err)
			}
		})
	}
	wg.Wait()
	return r.err
}

func (r *readers) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.wake.Broadcast()
}

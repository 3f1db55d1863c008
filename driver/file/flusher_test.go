package file

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestFlushesShare: flushes that come while one is under way need one more in all, and
// who waits for others can leave.
func TestFlushesShare(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	begun, gate := make(chan struct{}, 10), make(chan struct{})
	f := flusher{call: func(int) error {
		calls.Add(1)
		begun <- struct{}{}
		<-gate
		return nil
	}}
	var group sync.WaitGroup
	flush := func() {
		group.Go(func() {
			if err := f.sync(bg); err != nil {
				t.Error(err)
			}
		})
	}
	flush()
	<-begun
	for range 100 {
		flush()
	}
	for shared := false; !shared; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		shared = f.next != nil && f.next.shared == 100
		f.mu.Unlock()
	}
	gone, leave := context.WithCancel(bg)
	left := make(chan error)
	go func() { left <- f.sync(gone) }()
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("a flush whose client left: %v", err)
	}
	close(gate)
	group.Wait()
	if n := calls.Load(); n != 2 {
		t.Errorf("102 flushes at one time took %d fdatasync, want 2", n)
	}
}

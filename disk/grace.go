package disk

import (
	"context"
	"errors"
	"time"
)

// deafAfter is the silence of a server that an interrupted run waits no longer for.
const deafAfter = time.Second

// WithGrace returns a context that ends grace after ctx does: operations in
// flight get that long to finish by themselves. Of a server that is silent anyway
// they get no time.
func WithGrace(ctx context.Context, grace time.Duration, disks ...*Disk) (context.Context, func()) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	quit, ended := make(chan struct{}), make(chan struct{})
	var servers []Waiter
	for _, d := range disks {
		if w, ok := As[Waiter](d); ok {
			servers = append(servers, w)
		}
	}
	release := context.AfterFunc(ctx, func() {
		defer close(ended)
		endGrace(quit, grace, servers)
		cancel(ErrGrace)
	})
	return late, func() {
		close(quit)
		if !release() {
			<-ended
		}
		cancel(nil)
	}
}

// endGrace returns with quit, after grace, or when a server is silent.
func endGrace(quit <-chan struct{}, grace time.Duration, servers []Waiter) {
	end := time.NewTimer(grace)
	defer end.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		for _, s := range servers {
			if s.Waiting() >= deafAfter {
				return
			}
		}
		select {
		case <-quit:
			return
		case <-end.C:
			return
		case <-look.C:
		}
	}
}

// ErrGrace is the cause with which such a context ends.
var ErrGrace = errors.New("operations in flight did not end in time after the interruption")

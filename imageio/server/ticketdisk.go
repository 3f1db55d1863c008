package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// attach counts connection id as a user of the ticket and returns its disk,
// which the first user opens. The disk stays open until the last detach. Opening
// is an operation of the ticket: canceling the ticket ends it and waits for its end.
func (t *Ticket) attach(ctx context.Context, id uint64) (d *disk.Disk, err error) {
	t.mu.Lock()
	if t.canceled {
		t.mu.Unlock()
		return nil, t.errCanceled()
	}
	t.connections[id] = struct{}{}
	t.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	op := &operation{cancel: cancel}
	if err = t.begin(op); err == nil {
		d, err = t.open(ctx)
		if canceled := t.remove(op); canceled != nil {
			err = canceled
		}
	}
	if err != nil {
		return nil, errors.Join(err, t.detach(id))
	}
	return d, nil
}

func (t *Ticket) open(ctx context.Context) (*disk.Disk, error) {
	if err := t.opening.lock(ctx); err != nil {
		return nil, fmt.Errorf("wait for the image of transfer %s to open: %w", t.spec.TransferID, err)
	}
	defer t.opening.unlock()
	if t.disk != nil {
		return t.disk.d, nil
	}
	d, err := t.disks.acquire(ctx, t.url, t.spec.access(t.url))
	if err != nil {
		return nil, fmt.Errorf("open the image of transfer %s: %w", t.spec.TransferID, err)
	}
	t.disk = d
	return d.d, nil
}

func (t *Ticket) forget(id uint64) (last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.connections[id]; !ok {
		return false
	}
	delete(t.connections, id)
	return len(t.connections) == 0
}

// detach ends a connection's use of the ticket.
func (t *Ticket) detach(id uint64) error {
	if !t.forget(id) {
		return nil
	}
	return t.closeUnused(context.Background())
}

// closeUnused closes the disk if no connection has come meanwhile.
func (t *Ticket) closeUnused(ctx context.Context) error {
	if err := t.opening.lock(ctx); err != nil {
		return fmt.Errorf("%w %s: the image is still being opened or closed", errCancelTimeout, t.spec.TransferID)
	}
	defer t.opening.unlock()
	t.mu.Lock()
	unused := len(t.connections) == 0
	t.mu.Unlock()
	if !unused || t.disk == nil {
		return nil
	}
	d := t.disk
	t.disk = nil
	return t.disks.release(d)
}

var errCancelTimeout = errors.New("Timeout cancelling transfer") //nolint:staticcheck // the original's text, which clients see

// cancel forbids new operations, cancels the running ones, waits until they have
// ended, and closes the disk, whoever is still connected; errCancelTimeout after
// timeout. With timeout 0 it reports at once whether they had ended. A ticket whose
// disk does not close in time stays, to be removed again.
func (t *Ticket) cancel(timeout time.Duration) (unused bool, err error) {
	t.mu.Lock()
	t.canceled = true
	running := len(t.ongoing) > 0
	for op := range t.ongoing {
		op.cancel()
	}
	t.mu.Unlock()
	t.leave()
	if running && timeout == 0 {
		return false, nil
	}
	start := time.Now()
	if running {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		select {
		case <-t.idle:
		case <-timer.C:
			return false, fmt.Errorf("%w %s", errCancelTimeout, t.spec.TransferID)
		}
	}
	t.mu.Lock()
	clear(t.connections)
	t.mu.Unlock()
	limit, stop := context.WithTimeout(context.Background(), max(timeout-time.Since(start), closeTime))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- t.closeUnused(limit) }() // on its own: the storage may hang in closing
	select {
	case err := <-done:
		if !errors.Is(err, errCancelTimeout) {
			return true, err
		}
	case <-limit.Done():
	}
	if timeout == 0 {
		return false, nil
	}
	return false, fmt.Errorf("%w %s", errCancelTimeout, t.spec.TransferID)
}

// closeTime is what closing a disk takes at most where the storage answers.
const closeTime = time.Second

// attachedBy reports whether the ticket still counts connection id as a user.
func (t *Ticket) attachedBy(id uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.connections[id]
	return ok
}

package server

import (
	"context"
	"net/url"
	"slices"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// disks opens the images behind tickets, each once however many tickets are for
// it: the locks that keep writes to one block apart are the disk's.
type disks struct {
	open Opener

	mu     sync.Mutex
	images map[imageKey]*sharedDisk
}

// Access says what a ticket wants of its image. Without Write the disk must be
// opened read-only; with Dirty it shows the server's only dirty bitmap, if there is
// one, among its maps.
type Access struct{ Write, Dirty bool }

// access is what the image of a ticket is opened for. Writers of one NBD export
// share one disk whether they want the bitmap or not: where the server has blocks,
// its locks keep their writes apart.
func (s *ticketSpec) access(u *url.URL) Access {
	a := Access{Write: slices.Contains(s.Ops, "write"), Dirty: s.Dirty}
	if u.Scheme == "nbd" && a.Write {
		a.Dirty = true
	}
	return a
}

// sharedDisk is an image that is open, or is being opened or closed by whoever
// holds busy.
type sharedDisk struct {
	key  imageKey
	url  *url.URL
	refs int // guarded by disks.mu

	busy gate
	d    *disk.Disk
}

// gate is a lock that is not waited for beyond the end of a context: an open that
// hangs must not take those with it who only wait for their turn.
type gate chan struct{}

func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g gate) try() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) unlock() { <-g }

func newDisks(open Opener) *disks { return &disks{open: open, images: map[imageKey]*sharedDisk{}} }

// acquire returns the image open; release gives it back.
func (p *disks) acquire(ctx context.Context, u *url.URL, a Access) (*sharedDisk, error) {
	key := keyOf(u, a)
	p.mu.Lock()
	s := p.images[key]
	if s == nil {
		s = &sharedDisk{key: key, url: u, busy: make(gate, 1)}
		p.images[key] = s
	}
	s.refs++
	p.mu.Unlock()

	err := s.busy.lock(ctx)
	if err == nil {
		if s.d == nil {
			s.d, err = p.open(ctx, u, a)
		}
		s.busy.unlock()
	}
	if err != nil {
		_ = p.release(s) // this user opened nothing
		return nil, err
	}
	return s, nil
}

// release closes the image when its last user gives it back. An acquire that
// comes meanwhile waits, and opens it again. Who finds the image busy leaves it to
// whoever made it so, and gives it back later.
func (p *disks) release(s *sharedDisk) (err error) {
	p.mu.Lock()
	s.refs--
	p.mu.Unlock()
	for p.unused(s) && s.busy.try() {
		if p.unused(s) && s.d != nil {
			err = s.d.Close()
			s.d = nil
		}
		p.mu.Lock()
		if s.refs == 0 && p.images[s.key] == s && s.d == nil {
			delete(p.images, s.key)
		}
		p.mu.Unlock()
		s.busy.unlock()
	}
	return err
}

// unused: no user is left, and nobody has seen to it.
func (p *disks) unused(s *sharedDisk) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return s.refs == 0 && p.images[s.key] == s
}

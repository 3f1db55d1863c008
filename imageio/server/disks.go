package server

import (
	"context"
	"net/url"
	"path/filepath"
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

type imageKey struct {
	image string
	write bool
}

// sharedDisk is an image that is open, or is being opened or closed under mu.
type sharedDisk struct {
	key  imageKey
	url  *url.URL
	refs int // guarded by disks.mu

	mu sync.Mutex
	d  *disk.Disk
}

func newDisks(open Opener) *disks { return &disks{open: open, images: map[imageKey]*sharedDisk{}} }

// keyOf: names of one file are one image.
func keyOf(u *url.URL, write bool) imageKey {
	if u.Scheme != "file" {
		return imageKey{u.String(), write}
	}
	path, err := filepath.EvalSymlinks(u.Path)
	if err != nil {
		path = filepath.Clean(u.Path) // opening it will tell
	}
	return imageKey{"file:" + path, write}
}

// acquire returns the image open; release gives it back.
func (p *disks) acquire(ctx context.Context, u *url.URL, write bool) (*sharedDisk, error) {
	key := keyOf(u, write)
	p.mu.Lock()
	s := p.images[key]
	if s == nil {
		s = &sharedDisk{key: key, url: u}
		p.images[key] = s
	}
	s.refs++
	p.mu.Unlock()

	s.mu.Lock()
	var err error
	if s.d == nil {
		s.d, err = p.open(ctx, u, write)
	}
	s.mu.Unlock()
	if err != nil {
		_ = p.release(s) // nothing is open
		return nil, err
	}
	return s, nil
}

// release closes the image when its last user gives it back. An acquire that
// comes meanwhile waits, and opens it again.
func (p *disks) release(s *sharedDisk) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.mu.Lock()
	s.refs--
	last := s.refs == 0
	p.mu.Unlock()
	if last && s.d != nil {
		err = s.d.Close()
		s.d = nil
	}
	p.mu.Lock()
	if s.refs == 0 && p.images[s.key] == s {
		delete(p.images, s.key)
	}
	p.mu.Unlock()
	return err
}

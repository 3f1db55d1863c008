package qcow2

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// tableCache keeps slices of L2 tables, by their offset in the file. It is sharded, since
// each I/O looks into it.
type tableCache struct {
	child  *disk.Disk
	words  int64 // of a slice
	room   int   // slices that a shard keeps
	shards [cacheShards]cacheShard
}

const cacheShards = 16

type cacheShard struct {
	mu     sync.Mutex
	slices map[int64]*slice
	ring   []*slice // the clock that evicts
	hand   int
}

// slice is a part of an L2 table. What is known of its loading is final when loaded is
// closed; words are read and written under mu.
type slice struct {
	off    int64
	loaded chan struct{}
	err    error
	used   bool // since the hand came by; under the shard's mu
	// hold counts what keeps the slice in the cache: who is about to change it, and
	// changes that are not on disk. It leaves 0 under the shard's mu alone.
	hold atomic.Int32

	mu    sync.RWMutex
	words []uint64
	// dirty: the words [low, high) are not on disk.
	dirty     bool
	low, high int64
}

func newTableCache(child *disk.Disk, words, bytes int64) *tableCache {
	c := &tableCache{child: child, words: words, room: int(max(bytes/(words*8)/cacheShards, 2))}
	for i := range c.shards {
		c.shards[i].slices = make(map[int64]*slice)
	}
	return c
}

func (c *tableCache) shard(off int64) *cacheShard {
	return &c.shards[uint64(off)/uint64(c.words*8)%cacheShards]
}

// get returns the slice at off of the file. One of several who want it reads it.
func (c *tableCache) get(ctx context.Context, off int64) (*slice, error) {
	return c.find(ctx, off, 0)
}

// pin is get for who will change the slice, and ends with hold.Add(-1).
func (c *tableCache) pin(ctx context.Context, off int64) (*slice, error) {
	s, err := c.find(ctx, off, 1)
	if err != nil && s != nil {
		s.hold.Add(-1)
	}
	return s, err
}

// put adds a slice that is nowhere on disk yet, pinned.
func (c *tableCache) put(off int64, words []uint64) *slice {
	s := &slice{off: off, loaded: make(chan struct{}), words: words}
	close(s.loaded)
	s.hold.Store(1)
	sh := c.shard(off)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if old := sh.slices[off]; old != nil {
		sh.remove(old) // of a table that was here once
	}
	sh.add(s, c.room)
	return s
}

func (c *tableCache) find(ctx context.Context, off int64, hold int32) (*slice, error) {
	sh := c.shard(off)
	for {
		sh.mu.Lock()
		s := sh.slices[off]
		if s == nil {
			s = &slice{off: off, loaded: make(chan struct{})}
			s.hold.Add(hold)
			sh.add(s, c.room)
			sh.mu.Unlock()
			c.load(ctx, sh, s)
			return s, s.err
		}
		s.used = true
		s.hold.Add(hold)
		sh.mu.Unlock()
		select {
		case <-s.loaded:
		default:
			select {
			case <-s.loaded:
			case <-ctx.Done():
				s.hold.Add(-hold)
				return nil, ctx.Err()
			}
		}
		// Whoever read it may have been cancelled, which is no answer for others.
		if s.err == nil || !isCancel(s.err) || ctx.Err() != nil {
			return s, s.err
		}
		s.hold.Add(-hold)
	}
}

func (c *tableCache) load(ctx context.Context, sh *cacheShard, s *slice) {
	defer close(s.loaded)
	n := c.words * 8
	if size := c.child.Size(); s.off > size-n {
		s.err = corrupt("an L2 table at offset %d is not inside the file of %d bytes: is the file cut short?", s.off, size)
	} else {
		buf := make([]byte, n)
		if s.err = c.child.ReadAt(ctx, buf, s.off); s.err == nil {
			s.words = make([]uint64, c.words)
			decodeWords(s.words, buf)
			return
		}
	}
	sh.mu.Lock()
	sh.remove(s)
	sh.mu.Unlock()
}

// add puts s into the shard, and takes out what was not used lately where that is full.
// Slices that are held stay, so there may be more for a time.
func (sh *cacheShard) add(s *slice, room int) {
	sh.slices[s.off] = s
	for tries := 2 * len(sh.ring); len(sh.ring) >= room && tries > 0; tries-- {
		o := sh.ring[sh.hand]
		if o.used || o.hold.Load() > 0 {
			o.used = false
			sh.hand = (sh.hand + 1) % len(sh.ring)
			continue
		}
		delete(sh.slices, o.off)
		if len(sh.ring) == room {
			sh.ring[sh.hand] = s
			sh.hand = (sh.hand + 1) % room
			return
		}
		last := len(sh.ring) - 1
		sh.ring[sh.hand] = sh.ring[last]
		sh.ring = sh.ring[:last]
		sh.hand %= len(sh.ring)
	}
	sh.ring = append(sh.ring, s)
}

// remove takes a slice out that could not be read.
func (sh *cacheShard) remove(s *slice) {
	if sh.slices[s.off] != s {
		return // evicted meanwhile
	}
	delete(sh.slices, s.off)
	for i, o := range sh.ring {
		if o == s {
			last := len(sh.ring) - 1
			sh.ring[i] = sh.ring[last]
			sh.ring, sh.hand = sh.ring[:last], 0
			return
		}
	}
}

func isCancel(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

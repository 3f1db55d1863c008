package qcow2

import (
	"context"
	"errors"
	"sync"

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

	mu    sync.RWMutex
	words []uint64
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
	sh := c.shard(off)
	for {
		sh.mu.Lock()
		s := sh.slices[off]
		if s == nil {
			s = &slice{off: off, loaded: make(chan struct{})}
			sh.add(s, c.room)
			sh.mu.Unlock()
			c.load(ctx, sh, s)
			return s, s.err
		}
		s.used = true
		sh.mu.Unlock()
		select {
		case <-s.loaded:
		default:
			select {
			case <-s.loaded:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		// Whoever read it may have been cancelled, which is no answer for others.
		if s.err == nil || !isCancel(s.err) || ctx.Err() != nil {
			return s, s.err
		}
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

// add puts s into the shard, in the place of one that was not used lately if it is full.
func (sh *cacheShard) add(s *slice, room int) {
	sh.slices[s.off] = s
	if len(sh.ring) < room {
		sh.ring = append(sh.ring, s)
		return
	}
	for sh.ring[sh.hand].used {
		sh.ring[sh.hand].used = false
		sh.hand = (sh.hand + 1) % len(sh.ring)
	}
	delete(sh.slices, sh.ring[sh.hand].off)
	sh.ring[sh.hand] = s
	sh.hand = (sh.hand + 1) % len(sh.ring)
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

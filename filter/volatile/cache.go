package volatile

import (
	"maps"
	"slices"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// group is how many blocks share an entry of the map.
const group = 1024

// block is what a block holds that is newer than the disk below.
type block struct {
	data  []byte     // nil: zeros
	flags disk.Flags // MayTrim, of a zero
}

// cache maps block numbers to blocks, in groups, so that long ranges without
// any are skipped quickly. The caller holds mu.
type cache struct {
	mu     sync.RWMutex
	groups map[int64]*[group]*block
	count  int
}

func newCache() *cache { return &cache{groups: make(map[int64]*[group]*block)} }

func (c *cache) get(n int64) *block {
	if g := c.groups[n/group]; g != nil {
		return g[n%group]
	}
	return nil
}

func (c *cache) put(n int64, b *block) {
	g := c.groups[n/group]
	if g == nil {
		g = new([group]*block)
		c.groups[n/group] = g
	}
	if g[n%group] == nil {
		c.count++
	}
	g[n%group] = b
}

func (c *cache) drop(n int64) {
	if g := c.groups[n/group]; g != nil && g[n%group] != nil {
		g[n%group] = nil
		c.count--
	}
}

// dropRange forgets the blocks [first, end).
func (c *cache) dropRange(first, end int64) {
	for first < end {
		next := min((first/group+1)*group, end)
		if c.groups[first/group] != nil {
			for ; first < next; first++ {
				c.drop(first)
			}
		}
		first = next
	}
}

// clean returns how many blocks from n on, below end, the cache does not hold.
func (c *cache) clean(n, end int64) int64 {
	if c.count == 0 {
		return end - n
	}
	for i := n; i < end; {
		g := c.groups[i/group]
		if g == nil {
			i = (i/group + 1) * group
			continue
		}
		if g[i%group] != nil {
			return i - n
		}
		i++
	}
	return end - n
}

type entry struct {
	n int64
	b *block
}

// sorted lists the blocks in order.
func (c *cache) sorted() []entry {
	all := make([]entry, 0, c.count)
	for _, i := range slices.Sorted(maps.Keys(c.groups)) {
		for j, b := range c.groups[i] {
			if b != nil {
				all = append(all, entry{i*group + int64(j), b})
			}
		}
	}
	return all
}

// forget drops the entries that are still what they were, and groups left empty.
func (c *cache) forget(written []entry) {
	for _, e := range written {
		if c.get(e.n) == e.b {
			c.drop(e.n)
		}
	}
	if c.count == 0 {
		clear(c.groups)
	}
}

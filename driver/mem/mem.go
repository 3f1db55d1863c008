package mem

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// The directory is a radix tree of three levels over the chunk's number: a root
// as long as the size asks for, then fixed nodes. 8 TiB need a root of two.
const (
	pageSize   = 4 << 10
	chunkShift = 16
	chunkSize  = 1 << chunkShift
	fanBits    = 13
	tableShift = chunkShift + fanBits // one table spans 512 MiB
	midShift   = tableShift + fanBits // one middle node spans 4 TiB
)

type (
	table  [1 << fanBits]atomic.Pointer[chunk]
	middle [1 << fanBits]atomic.Pointer[table]
	root   []atomic.Pointer[middle]
)

// chunk is 64 KiB of the disk. A chunk that was freed stays dead: whoever still
// holds it looks it up again.
type chunk struct {
	mu    sync.RWMutex
	dead  bool
	pages uint16 // bit i: page i may hold data; the others are zeros
	// data is what there is memory for, whole pages from offset from on.
	from int64
	data []byte
}

// shape is what a resize replaces.
type shape struct {
	size int64
	gen  uint64
	root root
}

// Driver is a RAM disk; see the package comment.
type Driver struct {
	shape     atomic.Pointer[shape]
	resizing  sync.Mutex
	allocated atomic.Int64 // bytes of memory that hold data now
	everWrote atomic.Bool
}

// Open returns a new RAM disk of size bytes that reads as zeros.
func Open(size int64) (*disk.Disk, error) {
	if size < 0 {
		return nil, fmt.Errorf("mem: the size is %d bytes: it must not be negative", size)
	}
	d := new(Driver)
	d.shape.Store(&shape{size: size, root: make(root, rootLen(size))})
	return disk.New(d, fmt.Sprintf("mem:%d", size)), nil
}

func rootLen(size int64) int64 { return size>>midShift + 1 }

// Info implements disk.Driver.
func (d *Driver) Info() disk.Info {
	s := d.shape.Load()
	return disk.Info{
		Size: s.size, Gen: s.gen, Preferred: pageSize,
		MultiConn: true, KnownZero: !d.everWrote.Load(),
		Zero: disk.Native, FastZero: disk.Native, Trim: disk.Native, FUA: disk.Native, Cache: disk.Native,
		Maps: []disk.MapName{disk.Allocation},
	}
}

// Allocated is the memory that holds data now, in bytes.
func (d *Driver) Allocated() int64 { return d.allocated.Load() }

// Inspect implements disk.Inspector.
func (d *Driver) Inspect(context.Context) ([]disk.Attr, error) {
	return []disk.Attr{{Name: "allocated", Value: d.Allocated()}}, nil
}

// slot returns the directory's entry for the chunk that holds off, nil where
// its table does not exist and grow is false.
func (d *Driver) slot(off int64, grow bool) *atomic.Pointer[chunk] {
	r := d.shape.Load().root
	m := r[off>>midShift].Load()
	if m == nil {
		if !grow {
			return nil
		}
		m = ensure(&r[off>>midShift])
	}
	entry := &m[off>>tableShift&(1<<fanBits-1)]
	t := entry.Load()
	if t == nil {
		if !grow {
			return nil
		}
		t = ensure(entry)
	}
	return &t[off>>chunkShift&(1<<fanBits-1)]
}

// ensure fills an empty node of the directory.
func ensure[T any](p *atomic.Pointer[T]) *T {
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}

func (d *Driver) find(off int64) *chunk {
	if s := d.slot(off, false); s != nil {
		return s.Load()
	}
	return nil
}

// findOrMake returns the chunk that holds off.
func (d *Driver) findOrMake(off int64) *chunk {
	s := d.slot(off, true)
	for {
		if c := s.Load(); c != nil {
			return c
		}
		if c := new(chunk); s.CompareAndSwap(nil, c) {
			return c
		}
	}
}

// inChunk returns where off lies in its chunk and how many of n bytes follow there.
func inChunk(off, n int64) (at, part int64) {
	at = off & (chunkSize - 1)
	return at, min(n, chunkSize-at)
}

// ReadAt implements disk.Driver.
func (d *Driver) ReadAt(_ context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		at, n := inChunk(off, int64(len(p)))
		d.find(off).read(p[:n], at)
		p, off = p[n:], off+n
	}
	return nil
}

func (c *chunk) read(p []byte, at int64) {
	if c == nil {
		clear(p)
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	have := c.part(at, int64(len(p)))
	if len(have) < len(p) {
		clear(p)
	}
	if len(have) > 0 {
		copy(p[max(c.from-at, 0):], have)
	}
}

// part is the memory there is for [at, at+n); c.mu is held.
func (c *chunk) part(at, n int64) []byte {
	have := int64(len(c.data))
	first, end := min(max(at-c.from, 0), have), min(max(at+n-c.from, 0), have)
	return c.data[first:end]
}

// WriteAt implements disk.Driver.
func (d *Driver) WriteAt(_ context.Context, p []byte, off int64, _ disk.Flags) error {
	if !d.everWrote.Load() {
		d.everWrote.Store(true)
	}
	for len(p) > 0 {
		at, n := inChunk(off, int64(len(p)))
		for !d.findOrMake(off).write(p[:n], at, &d.allocated) {
		}
		p, off = p[n:], off+n
	}
	return nil
}

// write reports false when the chunk was freed meanwhile. It adds the memory that it
// takes to allocated.
func (c *chunk) write(p []byte, at int64, allocated *atomic.Int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return false
	}
	first, end := at/pageSize, (at+int64(len(p))-1)/pageSize+1
	if len(c.data) < chunkSize && len(c.part(at, int64(len(p)))) < len(p) {
		allocated.Add(c.grow(first, end))
	}
	copy(c.data[at-c.from:], p)
	c.pages |= pageMask(first, end)
	return true
}

// grow takes memory: for the pages [first, end) of an empty chunk, else for the whole
// chunk. It returns by how many bytes that is more. (With all of a chunk from the
// start, 100,000 extents of 16 KiB cost 6.1 GiB of address space, a third more
// page faults, and a trip to the heap's lock for each.)
func (c *chunk) grow(first, end int64) int64 {
	old, at := c.data, c.from
	if len(old) == 0 {
		c.from, c.data = first*pageSize, make([]byte, (end-first)*pageSize)
		return int64(len(c.data))
	}
	c.from, c.data = 0, make([]byte, chunkSize)
	copy(c.data[at:], old)
	return int64(chunkSize - len(old))
}

// pageMask has the bits of the pages [first, end).
func pageMask(first, end int64) uint16 { return uint16(1<<end - 1<<first) }

// Zero implements disk.Driver. Chunks that hold no data any more are freed.
func (d *Driver) Zero(ctx context.Context, off, n int64, _ disk.Flags) error {
	for end := off + n; off < end; {
		t, next := d.tableAt(off)
		next = min(next, end)
		if t == nil {
			off = next
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for off < next {
			at, part := inChunk(off, next-off)
			d.zeroChunk(&t[off>>chunkShift&(1<<fanBits-1)], at, part)
			off += part
		}
	}
	return nil
}

// tableAt returns the table that holds off, or nil, and where the next one (or
// the next middle node that may exist) begins.
func (d *Driver) tableAt(off int64) (t *table, next int64) {
	m := d.shape.Load().root[off>>midShift].Load()
	if m == nil {
		return nil, (off>>midShift + 1) << midShift
	}
	return m[off>>tableShift&(1<<fanBits-1)].Load(), (off>>tableShift + 1) << tableShift
}

func (d *Driver) zeroChunk(s *atomic.Pointer[chunk], at, n int64) {
	c := s.Load()
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	first, end := (at+pageSize-1)/pageSize, (at+n)/pageSize
	if first < end {
		c.pages &^= pageMask(first, end)
	}
	if c.pages != 0 {
		clear(c.part(at, n))
		return
	}
	d.allocated.Add(-int64(len(c.data)))
	c.dead, c.data = true, nil
	s.Store(nil)
}

// Trim implements disk.Driver; what is trimmed reads as zeros.
func (d *Driver) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	return d.Zero(ctx, off, n, f)
}

// Flush implements disk.Driver.
func (d *Driver) Flush(context.Context) error { return nil }

// Cache implements disk.Cacher.
func (d *Driver) Cache(context.Context, int64, int64) error { return nil }

// Close implements disk.Driver: it gives the memory back.
func (d *Driver) Close() error {
	s := *d.shape.Load()
	s.root = make(root, len(s.root))
	d.shape.Store(&s)
	d.allocated.Store(0)
	return nil
}

// TryRead implements disk.Inliner.
func (d *Driver) TryRead(p []byte, off int64) error {
	return d.ReadAt(context.Background(), p, off)
}

// TryWrite implements disk.Inliner.
func (d *Driver) TryWrite(p []byte, off int64, f disk.Flags) error {
	return d.WriteAt(context.Background(), p, off, f)
}

// Readv implements disk.Vectorer.
func (d *Driver) Readv(ctx context.Context, vec [][]byte, off int64) error {
	for _, p := range vec {
		if err := d.ReadAt(ctx, p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// Writev implements disk.Vectorer.
func (d *Driver) Writev(ctx context.Context, vec [][]byte, off int64, f disk.Flags) error {
	for _, p := range vec {
		if err := d.WriteAt(ctx, p, off, f); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// NewQueue implements disk.Queuer: operations run at once.
func (d *Driver) NewQueue(int) (disk.Queue, error) { return nil, disk.ErrInline }

// Resize implements disk.Resizer. What shrinking cuts off is forgotten.
func (d *Driver) Resize(ctx context.Context, size int64) error {
	if size < 0 {
		return fmt.Errorf("new size %d: %w", size, disk.ErrRange)
	}
	d.resizing.Lock()
	defer d.resizing.Unlock()
	old := d.shape.Load()
	if size < old.size {
		if err := d.Zero(ctx, size, old.size-size, 0); err != nil {
			return err
		}
	}
	grown := make(root, rootLen(size))
	for i := range min(len(grown), len(old.root)) {
		grown[i].Store(old.root[i].Load())
	}
	d.shape.Store(&shape{size: size, gen: old.gen + 1, root: grown})
	return nil
}

package cow

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// Store says where the overlay is kept.
type Store string

// The stores; "" means Memory.
const (
	Memory Store = "memory"
	File   Store = "file"
)

// Config is the filter's parameters.
type Config struct {
	Store     Store
	Dir       string
	BlockSize int64 // 0 means 64 KiB
}

const (
	defaultBlock = 64 << 10
	minBlock     = 4 << 10
	maxBlock     = 2 << 20
	lockCount    = 256
)

// filter is the overlay over a disk; see the package comment.
type filter struct {
	child   *disk.Disk
	size    int64
	block   int64
	blocks  states
	store   store
	changed atomic.Bool
	// locks[n%lockCount] keeps what copies block n up, or zeroes it, apart from
	// what else uses it. Only dropPage holds more than one, and takes them in order.
	locks [lockCount]sync.RWMutex
	// scratch holds blocks that are being copied up.
	scratch sync.Pool
}

// New puts the filter over child, which it owns from here on unless it fails.
func New(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	if cfg.BlockSize == 0 {
		cfg.BlockSize = defaultBlock
	}
	if b := cfg.BlockSize; b < minBlock || b > maxBlock || b&(b-1) != 0 {
		return nil, fmt.Errorf("blocksize %d is no power of two from %d to %d", b, minBlock, maxBlock)
	}
	f := &filter{child: child, size: child.Size(), block: cfg.BlockSize}
	f.blocks.pages = make(map[int64]*page)
	f.scratch.New = func() any { b := make([]byte, f.block); return &b }
	switch cfg.Store {
	case "", Memory:
		f.store = &memory{blocks: make(map[int64][]byte)}
	case File:
		var err error
		if f.store, err = newFile(cfg.Dir); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("store %q is neither memory nor file", cfg.Store)
	}
	return disk.New(f, child.Name()), nil
}

// Info implements disk.Driver.
func (f *filter) Info() disk.Info {
	in := f.child.Info()
	return disk.Info{
		Size: f.size, Gen: in.Gen, Preferred: in.Preferred, MultiConn: true,
		KnownZero: in.KnownZero && !f.changed.Load(),
		Zero:      disk.Native, FastZero: disk.Native, Trim: disk.Native, FUA: disk.Native, Cache: disk.Native,
		Maps: []disk.MapName{disk.Allocation},
	}
}

// piece is the part of a range that lies in one block.
type piece struct {
	block  int64 // number
	at, n  int64 // within the block
	length int64 // of the block; the last one may be short
}

func (p *piece) whole() bool { return p.n == p.length }

func (f *filter) first(off, n int64) piece {
	b := off / f.block
	length := min(f.block, f.size-b*f.block)
	at := off - b*f.block
	return piece{block: b, at: at, n: min(n, length-at), length: length}
}

func (f *filter) lock(block int64) *sync.RWMutex { return &f.locks[block%lockCount] }

// ReadAt implements disk.Driver.
func (f *filter) ReadAt(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := f.readSome(ctx, p, off)
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readSome reads from one block, or from a run of blocks below. No lock is
// needed for those: a block that is copied up meanwhile has the same content
// below for ever.
func (f *filter) readSome(ctx context.Context, p []byte, off int64) (int64, error) {
	x := f.first(off, int64(len(p)))
	if run := f.blocks.run(x.block, (off+int64(len(p))-1)/f.block+1, below); run > 0 {
		n := min(int64(len(p)), (x.block+run)*f.block-off)
		return n, f.child.ReadAt(ctx, p[:n], off)
	}
	mu := f.lock(x.block)
	mu.RLock()
	defer mu.RUnlock()
	if f.blocks.get(x.block) == zero {
		clear(p[:x.n])
		return x.n, nil
	}
	return x.n, f.store.read(p[:x.n], x.block, x.block*f.block+x.at)
}

// WriteAt implements disk.Driver.
func (f *filter) WriteAt(ctx context.Context, p []byte, off int64, _ disk.Flags) error {
	f.changed.Store(true)
	for len(p) > 0 {
		x := f.first(off, int64(len(p)))
		if err := f.writeBlock(ctx, x, p[:x.n]); err != nil {
			return err
		}
		p, off = p[x.n:], off+x.n
	}
	return nil
}

func (f *filter) writeBlock(ctx context.Context, x piece, p []byte) error {
	mu := f.lock(x.block)
	mu.Lock()
	defer mu.Unlock()
	state := f.blocks.get(x.block)
	if state == held || x.whole() {
		if err := f.store.write(p, x.block, x.block*f.block+x.at, f.block); err != nil {
			return err
		}
		f.blocks.set(x.block, held)
		return nil
	}
	return f.copyUp(ctx, x, p, state)
}

// copyUp makes a block the overlay's, with p in it. The caller holds its lock.
func (f *filter) copyUp(ctx context.Context, x piece, p []byte, state state) error {
	scratch := f.scratch.Get().(*[]byte)
	defer f.scratch.Put(scratch)
	whole := (*scratch)[:x.length]
	if state == zero {
		clear(whole)
	} else if err := f.child.ReadAt(ctx, whole, x.block*f.block); err != nil {
		return fmt.Errorf("copying a block up: %w", err)
	}
	copy(whole[x.at:], p)
	if err := f.store.write(whole, x.block, x.block*f.block, f.block); err != nil {
		return err
	}
	f.blocks.set(x.block, held)
	return nil
}

// Zero implements disk.Driver.
func (f *filter) Zero(ctx context.Context, off, n int64, flags disk.Flags) error {
	f.changed.Store(true)
	first, end := f.wholeBlocks(off, n)
	if first >= end {
		if flags&disk.FastOnly != 0 {
			return disk.ErrNotFast
		}
		return f.zeroPart(ctx, off, n)
	}
	if err := f.drop(ctx, first, end); err != nil {
		return err
	}
	if err := f.zeroPart(ctx, off, first*f.block-off); err != nil {
		return err
	}
	tail := min(end*f.block, f.size)
	return f.zeroPart(ctx, tail, off+n-tail)
}

// wholeBlocks returns the numbers of the blocks that lie wholly in a range.
func (f *filter) wholeBlocks(off, n int64) (first, end int64) {
	first = off / f.block
	if off%f.block != 0 {
		first++
	}
	end = (off + n) / f.block
	if off+n == f.size && f.size%f.block != 0 {
		end++
	}
	return first, end
}

// drop makes whole blocks zeros that take no space.
func (f *filter) drop(ctx context.Context, first, end int64) error {
	for first < end {
		if run := f.blocks.run(first, end, zero); run > 0 {
			first += run
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if first%pageBlocks == 0 && end-first >= pageBlocks && f.dropPage(first) {
			first += pageBlocks
			continue
		}
		if err := f.dropBlock(first); err != nil {
			return err
		}
		first++
	}
	return nil
}

// dropPage drops a page of blocks at once, unless the overlay holds one of them.
func (f *filter) dropPage(first int64) bool {
	if !f.blocks.none(first, held) {
		return false
	}
	for i := range f.locks {
		f.locks[i].Lock()
		defer f.locks[i].Unlock()
	}
	if !f.blocks.none(first, held) {
		return false
	}
	f.blocks.setPage(first, zero)
	return true
}

func (f *filter) dropBlock(n int64) error {
	mu := f.lock(n)
	mu.Lock()
	defer mu.Unlock()
	if f.blocks.get(n) == held {
		if err := f.store.punch(n, n*f.block, f.block); err != nil {
			return err
		}
	}
	f.blocks.set(n, zero)
	return nil
}

// zeroPart writes zeros into a part of a block, or of two.
func (f *filter) zeroPart(ctx context.Context, off, n int64) error {
	if n <= 0 {
		return nil
	}
	return f.WriteAt(ctx, zeros[:n], off, 0)
}

var zeros [2 * maxBlock]byte

// Trim implements disk.Driver: whole blocks read as zeros and take no space.
func (f *filter) Trim(ctx context.Context, off, n int64, _ disk.Flags) error {
	f.changed.Store(true)
	first, end := f.wholeBlocks(off, n)
	return f.drop(ctx, first, end)
}

// Flush implements disk.Driver: the overlay is not meant to last.
func (f *filter) Flush(context.Context) error { return nil }

// Cache implements disk.Cacher.
func (f *filter) Cache(ctx context.Context, off, n int64) error { return f.child.Cache(ctx, off, n) }

// Extents implements disk.Driver.
func (f *filter) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	for end := off + n; off < end && len(dst) < cap(dst); {
		first := off / f.block
		state := f.blocks.get(first)
		run := f.blocks.run(first, (end-1)/f.block+1, state)
		e := disk.Extent{Len: min((first+run)*f.block, f.size) - off}
		switch state {
		case zero:
			e.Flags = disk.ExtentZero | disk.ExtentHole
		case below:
			return f.below(ctx, m, off, e.Len, dst)
		}
		dst = append(dst, e)
		off += e.Len
	}
	return dst, nil
}

// below asks the disk below and cuts the answer to n bytes.
func (f *filter) below(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	have := len(dst)
	dst, err := f.child.Extents(ctx, m, off, n, dst)
	for i := have; i < len(dst); i++ {
		if dst[i].Len >= n {
			dst[i].Len = n
			dst = dst[:i+1]
		}
		n -= dst[i].Len
	}
	return dst, err
}

// Close implements disk.Driver. The overlay is gone.
func (f *filter) Close() error {
	return errors.Join(f.store.discard(), f.child.Close())
}

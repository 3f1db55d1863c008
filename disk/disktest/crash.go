package disktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
)

// CrashConfig describes a disk that can lose its power.
type CrashConfig struct {
	Size int64
	// Block is what a power loss never tears, in bytes, a power of two from 512
	// to 64 KiB; 0 means 512. It is the disk's Min.
	Block int64
	// Seed decides the fate of each unflushed write.
	Seed uint64
	// Fail, if not nil, is asked before each operation; its error is the answer,
	// and the operation has done nothing. The rules of package filter/fault do
	// for it. A flush that fails loses writes as Linux does: some of those that it
	// should have made durable never will be, though they can still be read.
	Fail func(op disk.Kind, off, n int64) error
}

// Crash is a disk in RAM with a volatile write cache and a power switch: only
// what was flushed, or written with FUA, is sure to survive [Crash.PowerLoss].
// Any other write is lost, kept or torn. All methods are safe for concurrent use.
type Crash struct {
	cfg CrashConfig

	mu     sync.Mutex
	blocks map[int64]*crashBlock
	writes uint64
	life   int // grows with each power loss
}

// crashBlock is a block that was ever written. Versions are in order; one
// without data is zeros, and so is no stable one.
type crashBlock struct {
	stable  []byte
	pending []version
}

type version struct {
	data   []byte
	write  uint64
	doomed bool // by a failed flush
}

// ErrPowerLost is what a disk answers that was open when the power went.
var ErrPowerLost = fmt.Errorf("the power was lost: %w", syscall.EIO)

// NewCrash returns a disk that reads as zeros.
func NewCrash(cfg CrashConfig) *Crash {
	if cfg.Block == 0 {
		cfg.Block = 512
	}
	return &Crash{cfg: cfg, blocks: make(map[int64]*crashBlock)}
}

// Open returns the disk as it is now. Several may be open at once. Closing one
// neither flushes nor loses anything.
func (c *Crash) Open() *disk.Disk {
	c.mu.Lock()
	life := c.life
	c.mu.Unlock()
	return disk.New(&crashDriver{c: c, life: life}, fmt.Sprintf("crash:%d", c.cfg.Size))
}

// PowerLoss decides the fate of every unflushed write and makes all open disks fail.
func (c *Crash) PowerLoss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, b := range c.blocks {
		for _, v := range b.pending {
			if c.survives(v, n) {
				b.stable = v.data
			}
		}
		b.pending = nil
	}
	c.life++
}

// survives tells the fate of a version: a third of the writes are lost, a third
// kept, of the others each block for itself.
func (c *Crash) survives(v version, block int64) bool {
	if v.doomed {
		return false
	}
	rnd := rand.New(rand.NewPCG(c.cfg.Seed, v.write))
	switch rnd.IntN(3) {
	case 0:
		return false
	case 1:
		return true
	}
	return rand.New(rand.NewPCG(rnd.Uint64(), uint64(block))).IntN(2) == 0
}

// Durable returns what [off, off+n) would hold if every unflushed write were lost.
func (c *Crash) Durable(off, n int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := make([]byte, n)
	c.read(p, off, func(b *crashBlock) []byte { return b.stable })
	return p
}

func (b *crashBlock) current() []byte {
	if n := len(b.pending); n > 0 {
		return b.pending[n-1].data
	}
	return b.stable
}

func (c *Crash) read(p []byte, off int64, which func(*crashBlock) []byte) {
	clear(p)
	for i := int64(0); i < int64(len(p)); {
		at := (off + i) % c.cfg.Block
		part := min(c.cfg.Block-at, int64(len(p))-i)
		if b := c.blocks[(off+i)/c.cfg.Block]; b != nil {
			if data := which(b); data != nil {
				copy(p[i:i+part], data[at:])
			}
		}
		i += part
	}
}

// change gives the block n a new version.
func (c *Crash) change(n int64, v version, f disk.Flags) {
	b := c.blocks[n]
	if b == nil {
		if v.data == nil {
			return // zeros over what was never written
		}
		b = new(crashBlock)
		c.blocks[n] = b
	}
	if f&disk.FUA != 0 {
		b.stable, b.pending = v.data, nil
		return
	}
	b.pending = append(b.pending, v)
}

func (c *Crash) flush() {
	for _, b := range c.blocks {
		kept := b.pending[:0]
		for _, v := range b.pending {
			if v.doomed {
				kept = append(kept, v)
			} else {
				b.stable, kept = v.data, kept[:0]
			}
		}
		b.pending = kept
	}
}

// failFlush dooms about half of what the flush should have made durable.
func (c *Crash) failFlush() {
	for n, b := range c.blocks {
		for i := range b.pending {
			v := &b.pending[i]
			v.doomed = v.doomed || rand.New(rand.NewPCG(c.cfg.Seed^uint64(n), v.write)).IntN(2) == 0
		}
	}
}

// crashDriver is the disk during one life.
type crashDriver struct {
	c    *Crash
	life int
}

func (d *crashDriver) Info() disk.Info {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	return disk.Info{
		Size: d.c.cfg.Size, Min: d.c.cfg.Block, Volatile: true, MultiConn: true, KnownZero: len(d.c.blocks) == 0,
		Zero: disk.Native, FastZero: disk.Native, Trim: disk.Native, FUA: disk.Native,
		Maps: []disk.MapName{disk.Allocation},
	}
}

// begin locks the disk for an operation, unless that fails.
func (d *crashDriver) begin(op disk.Kind, off, n int64) error {
	if f := d.c.cfg.Fail; f != nil {
		if err := f(op, off, n); err != nil {
			if op == disk.Flush {
				d.c.mu.Lock()
				d.c.failFlush()
				d.c.mu.Unlock()
			}
			return err
		}
	}
	d.c.mu.Lock()
	if d.life != d.c.life {
		d.c.mu.Unlock()
		return ErrPowerLost
	}
	return nil
}

func (d *crashDriver) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := d.begin(disk.Read, off, int64(len(p))); err != nil {
		return err
	}
	defer d.c.mu.Unlock()
	d.c.read(p, off, (*crashBlock).current)
	return nil
}

func (d *crashDriver) WriteAt(_ context.Context, p []byte, off int64, f disk.Flags) error {
	if err := d.begin(disk.Write, off, int64(len(p))); err != nil {
		return err
	}
	defer d.c.mu.Unlock()
	d.c.writes++
	for size := d.c.cfg.Block; len(p) > 0; off += size {
		n := min(size, int64(len(p)))
		d.c.change(off/size, version{data: bytes.Clone(p[:n]), write: d.c.writes}, f)
		p = p[n:]
	}
	return nil
}

func (d *crashDriver) Zero(_ context.Context, off, n int64, f disk.Flags) error {
	if err := d.begin(disk.Zero, off, n); err != nil {
		return err
	}
	defer d.c.mu.Unlock()
	d.c.zero(off, n, f)
	return nil
}

func (c *Crash) zero(off, n int64, f disk.Flags) {
	c.writes++
	first, end := off/c.cfg.Block, (off+n-1)/c.cfg.Block+1
	if end-first > int64(len(c.blocks)) {
		for i := range c.blocks {
			if first <= i && i < end {
				c.change(i, version{write: c.writes}, f)
			}
		}
		return
	}
	for ; first < end; first++ {
		c.change(first, version{write: c.writes}, f)
	}
}

func (d *crashDriver) Trim(_ context.Context, off, n int64, f disk.Flags) error {
	if err := d.begin(disk.Trim, off, n); err != nil {
		return err
	}
	defer d.c.mu.Unlock()
	d.c.zero(off, n, f)
	return nil
}

func (d *crashDriver) Flush(context.Context) error {
	if err := d.begin(disk.Flush, -1, 0); err != nil {
		return err
	}
	defer d.c.mu.Unlock()
	d.c.flush()
	return nil
}

// Extents tells what was ever written from the rest, block by block.
func (d *crashDriver) Extents(_ context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	if m != disk.Allocation {
		return dst, errors.ErrUnsupported
	}
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if len(d.c.blocks) == 0 {
		return append(dst, disk.Extent{Len: n, Flags: disk.ExtentZero | disk.ExtentHole}), nil
	}
	have := len(dst)
	end := min(off+n, off+d.c.cfg.Block<<16) // what is never written may be very long
	for ; off < end; off += d.c.cfg.Block {
		e := disk.Extent{Len: min(d.c.cfg.Block, d.c.cfg.Size-off), Flags: disk.ExtentZero | disk.ExtentHole}
		if b := d.c.blocks[off/d.c.cfg.Block]; b != nil && b.current() != nil {
			e.Flags = 0
		}
		if last := len(dst) - 1; last >= have && dst[last].Flags == e.Flags {
			dst[last].Len += e.Len
		} else if len(dst) < cap(dst) {
			dst = append(dst, e)
		} else {
			break
		}
	}
	return dst, nil
}

func (d *crashDriver) Close() error { return nil }

package behind

import (
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// Filling finds out whether a server's clients fill a new disk, as an import does, and
// has it written out then. A disk that is read from, or whose parts are written time
// and again, belongs to a guest, and its page cache is left to the kernel; so is that
// of a disk which was not empty. All methods are safe for concurrent use, and on nil.
//
// Clients write in more than one place at once (nbdcopy in four, 128 MiB apart), and
// leave holes. So the disk is seen as blocks of Step bytes: one that is full is written
// out, and of those that are not the one that was not touched for the longest, when
// there are more than maxOpen.
type Filling struct {
	over atomic.Bool // no import, or no more
	w    *Writer

	mu    sync.Mutex
	open  map[int64]openBlock // by number
	begun map[int64]uint64    // a bit for each block that was written out, 64 to an entry
	ready []readyBlock        // to be written out
	clock uint64              // grows by every write
	again int                 // writes to blocks that were written out
	reads int
	busy  bool // advance runs
	group sync.WaitGroup
}

type openBlock struct {
	bytes   int64 // written
	touched uint64
}

type readyBlock struct{ number, bytes int64 }

const (
	// maxOpen blocks may be begun and not full: nbdcopy has twelve, and leaves one behind at
	// the end of each of a sparse image's extents.
	maxOpen = 32
	// maxAgain writes to blocks that were written out are forgiven: an image's head is often
	// written last.
	maxAgain = 16
	// maxReads are forgiven, of who looks what is on the disk. A guest's firmware alone
	// reads more.
	maxReads = 16
)

// NewFilling returns a Filling for d, or nil if d is not empty, or not in a page cache.
func NewFilling(d *disk.Disk) *Filling {
	in := d.Info()
	if !in.KnownZero || in.ReadOnly {
		return nil
	}
	w := NewWriter(d)
	if w == nil {
		return nil
	}
	return &Filling{w: w, open: map[int64]openBlock{}, begun: map[int64]uint64{}}
}

// Wrote tells of a completed write.
func (f *Filling) Wrote(off, n int64) {
	if f == nil || f.over.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for n > 0 && !f.over.Load() {
		part := min(n, Step-off%Step)
		f.touch(off/Step, part)
		off, n = off+part, n-part
	}
	if len(f.ready) > 0 && !f.busy && !f.over.Load() {
		f.busy = true
		f.group.Go(f.advance)
	}
}

// touch counts n bytes for a block.
func (f *Filling) touch(number, n int64) {
	if f.begun[number/64]&(1<<(number%64)) != 0 {
		if f.again++; f.again > maxAgain {
			f.over.Store(true)
		}
		return
	}
	f.clock++
	f.open[number] = openBlock{bytes: f.open[number].bytes + n, touched: f.clock}
	if f.open[number].bytes >= Step {
		f.writeOut(number)
	} else if len(f.open) > maxOpen {
		f.writeOut(f.oldest())
	}
}

func (f *Filling) oldest() int64 {
	oldest, touched := int64(0), f.clock+1
	for number, b := range f.open {
		if b.touched < touched {
			oldest, touched = number, b.touched
		}
	}
	return oldest
}

func (f *Filling) writeOut(number int64) {
	f.ready = append(f.ready, readyBlock{number, f.open[number].bytes})
	f.begun[number/64] |= 1 << (number % 64)
	delete(f.open, number)
}

// advance writes out what is ready, and ends when that is nothing.
func (f *Filling) advance() {
	for {
		b, ok := f.next()
		if !ok {
			return
		}
		f.w.Begin(b.number*Step, Step, b.bytes)
		if f.w.Broken {
			f.over.Store(true) // the clients' flush tells why
		}
	}
}

func (f *Filling) next() (readyBlock, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ready) == 0 || f.over.Load() {
		f.busy = false
		return readyBlock{}, false
	}
	b := f.ready[0]
	f.ready = append(f.ready[:0], f.ready[1:]...)
	return b, true
}

// Read tells that the disk was read from.
func (f *Filling) Read() {
	if f == nil || f.over.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads++; f.reads > maxReads {
		f.over.Store(true)
	}
}

// Close waits for what is under way; nothing more is done then.
func (f *Filling) Close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	f.over.Store(true)
	f.mu.Unlock() // nobody starts advance any more
	f.group.Wait()
}

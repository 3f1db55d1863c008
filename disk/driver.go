package disk

import (
	"context"
	"sync"
	"time"
)

// Flags modify a write, a zero or a trim.
type Flags uint32

const (
	// FUA: the data of this request is on stable storage when it returns.
	FUA Flags = 1 << iota
	// MayTrim lets Zero leave a hole (deallocate). Without it the range stays
	// allocated where the storage can promise that.
	MayTrim
	// FastOnly makes Zero fail with ErrNotFast, having touched nothing, when it
	// would not be substantially faster than writing the range.
	FastOnly
)

// Level says how a capability is provided by one layer.
type Level uint8

const (
	// None: the layer cannot do it.
	None Level = iota
	// Emulated: it works, by slower means.
	Emulated
	// Native: the layer has it itself.
	Native
)

// String returns "none", "emulated" or "native".
func (l Level) String() string {
	switch l {
	case Emulated:
		return "emulated"
	case Native:
		return "native"
	}
	return "none"
}

// MapName names one kind of map that Extents can report.
type MapName string

const (
	// Allocation: which ranges read as zeros, are holes, come from a backing file.
	Allocation MapName = "allocation"
	// Depth: Extent.Value is the depth in the backing chain the data comes
	// from (1 the image itself, 0 nowhere).
	Depth MapName = "depth"
	// DirtyPrefix begins the name of a dirty bitmap, "dirty:NAME";
	// Extent.Value is 1 where the bitmap is set.
	DirtyPrefix = "dirty:"
)

// ExtentFlags describe an extent of the Allocation map. The three bits are
// independent: an allocated range may be known to read as zeros, and a hole
// need not read as zeros when there is a backing file.
type ExtentFlags uint32

const (
	// ExtentZero: the range reads as zeros.
	ExtentZero ExtentFlags = 1 << iota
	// ExtentHole: the range takes no space in this layer.
	ExtentHole
	// ExtentBacking: the content comes from the backing file.
	ExtentBacking
)

// Extent is one run of a map. Extents are contiguous, so an extent carries its
// length in bytes (> 0) and not its offset.
type Extent struct {
	Len   int64
	Flags ExtentFlags // Allocation map
	Value uint32      // Depth and dirty maps
}

// ExtentBatch is a good room for the extents of one call (192 KiB), and what our NBD
// server puts into one answer. A server looks up as many as it cares to, and those
// that there is no room for are looked up again: with room for 512, three quarters of
// a server's time went into looking up 8192 sixteen times over.
const ExtentBatch = 8192

// Info describes a layer. It is a value: a filter copies its child's and edits
// it. Sizes and lengths are bytes; 0 in a limit means none.
type Info struct {
	// Size of the disk.
	Size int64
	// Gen grows whenever Size or a capability changes, so a live export notices.
	Gen uint64

	// Min is the smallest unit of I/O, a power of two up to 65536; 0 and 1 mean
	// bytes. Offsets that reach the driver are multiples of it, and so are lengths,
	// except that a request may end at Size.
	Min int64
	// MinAssumed: nobody demands Min, it is a guess that works with every server. Where
	// part of a block is to be written and the block cannot be read, the part alone is
	// tried.
	MinAssumed bool
	// Preferred is the unit below which I/O costs extra (0: unknown).
	Preferred int64
	// Bulk is the length below which the reads and writes of a long transfer cost
	// noticeably more for each byte (0: unknown, or less than 1 MiB).
	Bulk int64
	// MaxIO bounds one read or write, MaxZero one zero, MaxTrim one trim.
	MaxIO, MaxZero, MaxTrim int64
	// TrimAlign: a trim is rounded inward to multiples of it.
	TrimAlign int64
	// Atomic is the largest aligned write that is never torn by power loss (0: unknown).
	Atomic int64

	// Volatile: there is a write cache, so completed writes need Flush or FUA.
	Volatile bool
	// ReadOnly: writes, zeroes and trims fail with ErrReadOnly.
	ReadOnly bool
	// MultiConn: a flush by any user covers the completed writes of all.
	MultiConn bool
	// KnownZero: the whole disk is known to read as zeros now (a new sparse file).
	KnownZero bool
	// KernelIO: the CPU never touches the caller's memory in user space, so guest
	// memory may be handed down directly.
	KernelIO bool

	Zero, FastZero, Trim, FUA, Cache Level
	// HideZero: a server does not offer zeroing to its clients, which then have to
	// write zeros. Zero itself works as ever.
	HideZero bool

	// Maps lists what Extents can report; empty means that nothing is known.
	Maps []MapName
	// ID identifies the storage (for example "file:2049:1234"); equal non-empty
	// IDs are the same storage.
	ID string
}

// HasMap reports whether the layer can report m.
func (i *Info) HasMap(m MapName) bool {
	for _, have := range i.Maps {
		if have == m {
			return true
		}
	}
	return false
}

// Driver is what a back end or a filter implements. All methods are safe for
// concurrent use, except that Close is called once, last, with nothing running.
//
// A driver sees only requests that its own Info allows: inside [0, Size),
// aligned to Min (see there), not longer than its limits, n > 0, no FUA unless FUA is
// Native, no FastOnly unless FastZero is Native, no Zero at all if Zero is None,
// no Trim if Trim is None, no writes if ReadOnly. After a call returns, the
// driver never touches p again, cancelled or not.
type Driver interface {
	Info() Info
	// ReadAt fills p from off: all or an error, never partial.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes p at off. On an error any part of the range may have been
	// written.
	WriteAt(ctx context.Context, p []byte, off int64, f Flags) error
	// Zero makes the range read as zeros (guaranteed). It may answer
	// errors.ErrUnsupported at run time (the caller then writes zeros), and
	// ErrNotFast under FastOnly; both mean that nothing was touched.
	Zero(ctx context.Context, off, n int64, f Flags) error
	// Trim advises that the range is unused; it promises nothing of the content.
	Trim(ctx context.Context, off, n int64, f Flags) error
	// Flush makes every write completed before the call durable.
	Flush(ctx context.Context) error
	// Extents appends to dst between 1 and cap(dst)-len(dst) contiguous extents
	// of map m that begin at off; together they may be shorter than n (the
	// caller goes on from their end) and the last may be longer.
	Extents(ctx context.Context, m MapName, off, n int64, dst []Extent) ([]Extent, error)
	// Close releases the storage; it does not flush.
	Close() error
}

// Inliner is optional: I/O that does not block, or ErrWouldBlock with nothing
// done. A server calls it on the goroutine that reads the socket.
type Inliner interface {
	TryRead(p []byte, off int64) error
	TryWrite(p []byte, off int64, f Flags) error
}

// Vectorer is optional: scatter-gather I/O with the semantics of ReadAt and
// WriteAt on the concatenation of vec.
type Vectorer interface {
	Readv(ctx context.Context, vec [][]byte, off int64) error
	Writev(ctx context.Context, vec [][]byte, off int64, f Flags) error
}

// FileRange is a run of a file that holds a range of the disk's bytes. The file
// descriptor is valid until Release.
type FileRange struct {
	FD       int
	Off, Len int64
	// Turn, if not nil, is what whoever changes many bytes through FD at once holds
	// meanwhile. Nothing goes wrong without it: the kernel serializes writers, but
	// the processor of one that waits there spins.
	Turn sync.Locker
	// Done, if not nil, is called by Release.
	Done func()
}

// Release ends the use of the range.
func (r FileRange) Release() {
	if r.Done != nil {
		r.Done()
	}
}

// FileRanger is optional: direct access to the file below, for sendfile,
// FICLONE and copy_file_range. The answer may be shorter than n (>= 1 byte) and
// is false where there is no such file range. Under write the caller may change
// the bytes through FD until Release. Filters that translate, fault, delay,
// count or limit never forward it.
type FileRanger interface {
	FileRange(off, n int64, write bool) (FileRange, bool)
}

// Cacher is optional: advice that the range will be read soon; in whole blocks, of
// any length.
type Cacher interface {
	Cache(ctx context.Context, off, n int64) error
}

// WriteBehinder is optional management, reached by As, for whoever writes a disk
// from one end to the other and has no more use for what is written.
type WriteBehinder interface {
	// WriteBehind begins to bring what was written to [off, off+n) to stable
	// storage; it may block while the storage's queue is full. With drop it waits
	// until that is done and gives the memory back that cached the range. It is
	// advice: nothing becomes durable by it, and of a write that is lost Flush
	// tells as ever, whatever WriteBehind answered. It answers
	// errors.ErrUnsupported, for n = 0 too, where no cache lies between.
	WriteBehind(off, n int64, drop bool) error
}

// Advice says how a range of a disk will be used.
type Advice int

// The kinds of advice, as posix_fadvise(2) has them.
const (
	AdviceRandom     Advice = iota // in random order: reading ahead is of no use
	AdviceSequential               // from one end to the other
	AdviceNoReuse                  // once
	AdviceDrop                     // not soon: cached pages that are not dirty are dropped
)

// Adviser is optional management, reached by As, for programs that measure: what the
// host's page cache is told of a range. Content never depends on it. It answers
// errors.ErrUnsupported where there is no such cache.
type Adviser interface {
	Advise(off, n int64, a Advice) error
}

// Resizer is optional management: change the size of the disk. Shrinking
// discards the tail. Reach it through Disk.Resize, which keeps the sizes that
// the layers above remember in step.
type Resizer interface {
	Resize(ctx context.Context, size int64) error
}

// Grower is optional management, for a disk that becomes as large as what is put into it.
// Reach it through Disk.Grow.
type Grower interface {
	// Grow takes over the size that the storage has now, whoever changed it, and makes
	// a disk that is smaller than size as large. It never makes one smaller, also where
	// another program is growing it at the same time. What is added reads as zeros and
	// is durable after the next Flush.
	Grow(ctx context.Context, size int64) error
}

// Attr is one line of what Inspector tells.
type Attr struct {
	Name  string
	Value any // string, bool, int64, float64 or a slice of those
}

// Inspector is optional management: facts about the storage for people
// (`vmdisk info`), such as the file system's name or the server's features.
type Inspector interface {
	Inspect(ctx context.Context) ([]Attr, error)
}

// Waiter is optional management, of disks behind a server.
type Waiter interface {
	// Waiting is how long the server has been silent though it has requests to
	// answer; 0 where nothing is waited for. It may be late by a second or two.
	Waiting() time.Duration
}

// Unwrapper is implemented by filters through which the management interfaces
// may be reached: those that neither translate addresses nor restrict access.
type Unwrapper interface {
	Unwrap() *Disk
}

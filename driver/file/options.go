package file

import "fmt"

// Cache says how I/O relates to the host's page cache, by QEMU's names.
type Cache string

// The cache modes.
const (
	// Writeback uses the page cache; a flush makes writes durable.
	Writeback Cache = "writeback"
	// None goes past the page cache (O_DIRECT); a flush empties the device's cache.
	None Cache = "none"
	// Writethrough uses the page cache for reads; every write is durable when it
	// completes.
	Writethrough Cache = "writethrough"
	// Directsync is None with every write durable when it completes.
	Directsync Cache = "directsync"
	// Unsafe is Writeback that ignores flushes: for data one can afford to lose.
	Unsafe Cache = "unsafe"
)

// Set parses a mode; with String and Type it makes Cache a command-line flag.
func (c *Cache) Set(s string) error {
	switch Cache(s) {
	case Writeback, None, Writethrough, Directsync, Unsafe:
		*c = Cache(s)
		return nil
	}
	return fmt.Errorf("unknown cache mode %q: use writeback, none, writethrough, directsync or unsafe", s)
}

// String returns the mode's name; the zero value is writeback.
func (c Cache) String() string {
	if c == "" {
		return string(Writeback)
	}
	return string(c)
}

// Type names the kind of flag.
func (c Cache) Type() string { return "mode" }

func (c Cache) direct() bool { return c == None || c == Directsync }
func (c Cache) sync() bool   { return c == Writethrough || c == Directsync }

// AIO says how queues do asynchronous I/O.
type AIO string

// The AIO modes.
const (
	// Auto uses io_uring where it can be had and pays off, else threads.
	Auto AIO = "auto"
	// IOUring fails where io_uring cannot be had.
	IOUring AIO = "io_uring"
	// Threads uses a pool of threads that block in system calls.
	Threads AIO = "threads"
)

// Set parses a mode; with String and Type it makes AIO a command-line flag.
func (a *AIO) Set(s string) error {
	switch AIO(s) {
	case Auto, IOUring, Threads:
		*a = AIO(s)
		return nil
	}
	return fmt.Errorf("unknown AIO mode %q: use auto, io_uring or threads", s)
}

// String returns the mode's name; the zero value is auto.
func (a AIO) String() string {
	if a == "" {
		return string(Auto)
	}
	return string(a)
}

// Type names the kind of flag.
func (a AIO) Type() string { return "mode" }

// Options say how a file is opened. The zero value opens it writable, through
// the page cache, locked against other users.
type Options struct {
	Cache    Cache // default Writeback
	AIO      AIO   // default Auto
	ReadOnly bool
	// ForceShare opens a disk that other processes use: their locks are not
	// heeded and they are not kept out. The content may then change underneath.
	ForceShare bool
}

func (o *Options) check() error {
	if err := new(Cache).Set(o.Cache.String()); err != nil {
		return err
	}
	return new(AIO).Set(o.AIO.String())
}

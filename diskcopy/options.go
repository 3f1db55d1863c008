package diskcopy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// Strategy says how zeros reach the target. All but Auto exist to be compared
// with it.
type Strategy string

const (
	// Auto does what is cheapest on this target, by what it does and not by what
	// it claims. A target that is known to be zero (it says so, or a status
	// query shows it) needs nothing. If the target offers fast zeroing, the first
	// hole is zeroed that way and timed against a written request; if that was
	// much cheaper, the rest of the target is zeroed in bulk and only data is
	// written. In all other cases each hole is zeroed, and nothing is written twice.
	Auto Strategy = "auto"
	// Write writes holes as zeros.
	Write Strategy = "write"
	// ZeroEach zeroes hole by hole.
	ZeroEach Strategy = "zero-each"
	// StatusFirst asks the target about each hole and zeroes what is not zero.
	StatusFirst Strategy = "status-first"
	// PreZero zeroes the whole target first, fast or not.
	PreZero Strategy = "prezero"
	// NoFallback zeroes the whole target first if the target agrees to do so fast,
	// and believes it; otherwise hole by hole.
	NoFallback Strategy = "nofallback"
)

// Strategies lists the valid values, the default first.
func Strategies() []Strategy {
	return []Strategy{Auto, Write, ZeroEach, StatusFirst, PreZero, NoFallback}
}

// ParseStrategy checks a name; empty is Auto.
func ParseStrategy(name string) (Strategy, error) {
	if name == "" {
		return Auto, nil
	}
	names := make([]string, 0, len(Strategies()))
	for _, s := range Strategies() {
		if name == string(s) {
			return s, nil
		}
		names = append(names, string(s))
	}
	return "", fmt.Errorf("unknown zero strategy %q: use one of %s", name, strings.Join(names, ", "))
}

// Options configures Copy; the zero value is the default.
type Options struct {
	// RequestSize is the largest read or write in bytes: a power of two from 4 KiB to
	// 64 MiB. Default 1 MiB, or what source and target have as Bulk, to 4 MiB.
	RequestSize int64
	// QueueDepth is the number of requests in flight, 1 to 1024. Default 8: more
	// gain nothing up to links of 20 ms, and their buffers do not fit the caches. From
	// local file to local file it is 4, as writers of one file wait for each other.
	QueueDepth int
	// SparseSize is the granularity in bytes at which data is searched for zeros: a
	// power of two from 512 to RequestSize; negative: no search. The default is 4096,
	// except that data which the kernel can move from file to socket by itself
	// (sendfile) is only searched in samples, and in full once those hold zeros.
	SparseSize int64
	// Strategy defaults to Auto.
	Strategy Strategy
	// TargetIsZero: the caller vouches that the whole target reads as zeros.
	TargetIsZero bool
	// Allocate keeps the whole target allocated: zeroing leaves no holes, and no
	// blocks are shared with the source.
	Allocate bool
	// NoClone keeps Copy from sharing blocks with the source (reflink).
	NoClone bool
	// NoFlush leaves out the flush of the target at the end.
	NoFlush bool
	// Verify reads source and target again after the copy and compares them.
	Verify bool
	// Journal is the path of the file that records progress; empty: none. It is
	// removed once the copy is complete.
	Journal string
	// Resume goes on where Journal says; without such a file the copy begins at 0. What is
	// done already is compared, source with target, and what differs is written again.
	Resume bool
	// Trust leaves that comparison out: the caller vouches that neither disk changed
	// since the copy began. What can be seen of a change at little cost is refused.
	Trust bool
	// DiscardEmpty: a copy that ends before anything is safe leaves no journal.
	DiscardEmpty bool
	// Publish, if not nil, is called once the target is complete, flushed and verified, with the
	// target still open and the journal still there and locked. After an error of it the
	// copy can be resumed.
	Publish func() error
	// Checkpoint is the time between two records in the journal, each of
	// which costs a flush of the target. Default 5 s.
	Checkpoint time.Duration
	// Grace is how long operations in flight may take after cancellation.
	// Default 10 s.
	Grace time.Duration
	// Progress is called from one goroutine at a time, at most every
	// ProgressEvery (default 100 ms), and at the end of each phase.
	Progress      func(Progress)
	ProgressEvery time.Duration

	sample, autoDepth bool // SparseSize, QueueDepth were left to us
}

// Progress is the state of a copy, comparison or checksum.
type Progress struct {
	Phase string `json:"phase"` // "check", "copy", "flush", "verify", "compare", "checksum"
	Done  int64  `json:"done"`  // bytes of the disk dealt with, holes included
	Total int64  `json:"total"`
	// WaitingFor names the server that has been silent for WaitingSeconds though it
	// has requests to answer; empty while all goes on.
	WaitingFor     string `json:"waiting_for,omitempty"`
	WaitingSeconds int64  `json:"waiting_seconds,omitempty"`
}

const (
	defaultRequest    = 1 << 20
	maxDefaultRequest = 4 << 20

	minRequest = 4 << 10
	maxRequest = 64 << 20
	maxDepth   = 1024
	maxMemory  = 16 << 30
)

var (
	errDepth  = fmt.Errorf("queue depth is not within 1 to %d", maxDepth)
	errMemory = errors.New("queue depth times request size is beyond 16 GiB")
)

// complete checks the options and fills in the defaults for a transfer between disks.
func (o Options) complete(disks ...*disk.Disk) (Options, error) {
	if o.RequestSize == 0 {
		o.RequestSize = defaultRequest
		for _, d := range disks {
			for o.RequestSize < min(d.Info().Bulk, maxDefaultRequest) {
				o.RequestSize *= 2
			}
		}
	}
	o.autoDepth = o.QueueDepth == 0
	o.QueueDepth = orDefault(o.QueueDepth, 8)
	o.sample = o.SparseSize == 0
	o.SparseSize = orDefault(o.SparseSize, min(4096, o.RequestSize))
	o.Checkpoint = orDefault(o.Checkpoint, 5*time.Second)
	o.Grace = orDefault(o.Grace, 10*time.Second)
	var err error
	if o.Strategy, err = ParseStrategy(string(o.Strategy)); err != nil {
		return o, err
	}
	if !powerOfTwo(o.RequestSize, minRequest, maxRequest) {
		return o, fmt.Errorf("request size %d is not a power of two from 4 KiB to 64 MiB", o.RequestSize)
	}
	if o.QueueDepth < 1 || o.QueueDepth > maxDepth {
		return o, errDepth
	}
	if o.SparseSize > 0 && !powerOfTwo(o.SparseSize, 512, o.RequestSize) {
		return o, fmt.Errorf("sparse size %d is not a power of two from 512 to the request size", o.SparseSize)
	}
	if int64(o.QueueDepth)*o.RequestSize > maxMemory {
		return o, errMemory
	}
	if o.Checkpoint < 0 {
		return o, errors.New("the time between two checkpoints is negative")
	}
	if o.Resume && o.Journal == "" {
		return o, errors.New("a copy can only be resumed from a journal: name it")
	}
	return o, nil
}

func powerOfTwo[T int | int64](n, low, high T) bool { return n >= low && n <= high && n&(n-1) == 0 }

func orDefault[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

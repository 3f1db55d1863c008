package diskurl

import (
	"context"
	"fmt"
	"net/url"

	"github.com/vmdisk/vmdisk/disk"
)

// protocol is a row of the table of protocols: where bytes come from. What can be said
// of an address without the driver, its type says.
type protocol struct {
	schemes []string
	// parse parses a URL without formats, its scheme included.
	parse func(s string) (Addr, error)
	// ticket makes an address of the URL of a transfer ticket, in which nothing is escaped.
	// nil: tickets do not name such disks.
	ticket func(u *url.URL) (Addr, error)
	// open opens the disk. It looks at the options of its own group alone, and at ReadOnly.
	open func(ctx context.Context, a Addr, o *Options) (*disk.Disk, error)
	// check, if not nil, is called before open where nobody named a format.
	check func(a Addr, o *Options) error
	// create makes new storage and has it laid out, see layout. nil: there is none to be made.
	create func(ctx context.Context, a Addr, o CreateOptions, lay layout) error
	// list lists what the server of an address has. nil: it cannot be asked.
	list func(ctx context.Context, a Addr, o *Options) ([]Export, error)
}

// layout gives new storage, at an address of its own until it is complete, its content.
type layout func(ctx context.Context, at Addr) error

// format is a row of the table of formats: an operator over any disk. It opens nothing
// but its child, which is its own from then on, unless it fails.
type format struct {
	name string
	open func(ctx context.Context, child *disk.Disk, o FormatOptions) (*disk.Disk, error)
	// create lays an empty disk of a size out on a writable child, whose bytes are zeros
	// and which may have to grow. nil: this build only reads the format.
	create func(ctx context.Context, child *disk.Disk, o CreateOptions) error
}

// FormatOptions are what a format may do.
type FormatOptions struct {
	ReadOnly bool
	// References opens what the image names; nil denies all.
	References Policy
	// NoReferences leaves that alone, to look at the image itself.
	NoReferences bool
}

// Reference is a disk that an image names besides the one that it lies in.
type Reference struct {
	// Kind is "backing file" or "data file".
	Kind string
	// Name and Format are as the image has them; Format is "" if it says nothing. A
	// guest may have written both.
	Name, Format string
}

// Policy opens, for reading, what an image names, or refuses with the reason. It is
// whoever opens the image that decides where such disks may lie, of what formats and how
// deep a chain is; the format of a reference is never guessed.
type Policy func(ctx context.Context, r Reference) (*disk.Disk, error)

// filter is a row of the table of filters: one more layer over a disk.
type filter struct {
	name, summary string
	keys          []Key
	// keepsBase: nothing is ever written below it, so that the disk can be opened for
	// reading, and shared.
	keepsBase bool
	// build reads its parameters from p (which remembers the first error) and
	// puts the filter over child; it is only kept if p is content.
	build func(ctx context.Context, child *disk.Disk, p *params) (*disk.Disk, error)
}

// Key is a parameter of a filter.
type Key struct {
	Name string
	// Form is what its value looks like, such as SIZE; Values are all that there
	// are, the first the default, where it is one of some words.
	Form   string
	Values []string
	Help   string
}

// The tables. Each row's file adds its row, so that one that is left out by its build tag
// leaves no trace.
var (
	protocols = map[string]*protocol{}
	formats   = map[string]*format{}
	filters   = map[string]*filter{}
)

func addProtocol(p *protocol) bool {
	for _, s := range p.schemes {
		mustBeNew(s)
		protocols[s] = p
	}
	return true
}

func addFormat(f *format) bool {
	mustBeNew(f.name)
	formats[f.name] = f
	return true
}

func addFilter(f *filter) bool {
	mustBeNew(f.name)
	filters[f.name] = f
	return true
}

// mustBeNew keeps a name from meaning two things.
func mustBeNew(name string) {
	if Built(name) {
		panic(fmt.Sprintf("diskurl: two rows are named %q", name))
	}
}

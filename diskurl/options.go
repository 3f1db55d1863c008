package diskurl

import (
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// Options say how a disk is opened. The zero value opens it writable, with the
// drivers' defaults. What a group says matters to its protocols alone.
type Options struct {
	// Format is the disk's format, as a URL FORMAT:… names it. Empty means raw for
	// a file that does not begin like an image, and an error for one that does.
	Format string
	// FormatFlag is what errors call Format, such as a flag; "Format" if empty.
	FormatFlag string
	// References is what an image may name, such as a backing file.
	References References
	// NoReferences opens nothing that an image names, which only shows the image itself.
	NoReferences bool
	// Filters go over the disk, the first outermost; see ParseFilter.
	Filters  []string
	ReadOnly bool

	FileOptions
	ServerOptions
	TransferOptions
}

// FileOptions are for local files and block devices.
type FileOptions struct {
	// ForceShare opens a local disk although others use it.
	ForceShare bool
	// Cache and AIO are QEMU's names of the modes.
	Cache, AIO string
}

// ServerOptions are for disks behind a server.
type ServerOptions struct {
	// TLS is used by nbds and https URLs.
	TLS TLS
	// Reconnect is how long to try to get a lost server back: 0 is the
	// driver's default, negative not at all.
	Reconnect time.Duration
	// Timeout is how long a server may be silent over a request: 0 is the drivers'
	// default, negative for ever. Flushes, zeroes and the like get ten times as long.
	Timeout time.Duration
	// NoReplay keeps no copy of what was written to an NBD server since the last
	// flush: cheaper, but a lost connection then fails the next flush.
	NoReplay bool
	// Maps are wanted from a server besides disk.Allocation; those that it
	// lacks are left out. Each makes every map query slower.
	Maps []disk.MapName
	// Connections bounds the connections to a server; 0 is its default.
	Connections int
}

// TransferOptions are for disks behind the transfer API.
type TransferOptions struct {
	// NoUnixSocket keeps a transfer on the network though the daemon runs here.
	NoUnixSocket bool
}

func (o *Options) formatFlag() string { return flagOr(o.FormatFlag) }

func flagOr(flag string) string {
	if flag == "" {
		return "Format"
	}
	return flag
}

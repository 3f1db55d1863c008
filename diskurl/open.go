package diskurl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/driver/null"
	"github.com/vmdisk/vmdisk/driver/pattern"
)

// ErrNotBuilt: the URL is right, but this build has no driver for it.
var ErrNotBuilt = errors.New("not supported by this build")

// ErrInUse: another process, or this one, uses the disk.
var ErrInUse = file.ErrInUse

// Options say how a disk is opened. The zero value opens it writable, with the
// drivers' defaults.
type Options struct {
	// Format of a local file: "", "raw", "qcow2" or "luks". Empty means raw for
	// a file that does not begin like an image, and an error for one that does.
	Format string
	// FormatFlag is the flag that such an error names; "-f" if empty.
	FormatFlag string
	// Filters go over the disk, the first outermost; see ParseFilter.
	Filters  []string
	ReadOnly bool
	// ForceShare opens a local disk although others use it.
	ForceShare bool
	// Cache and AIO are QEMU's names of the modes, for local files and devices.
	Cache, AIO string
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
	// Maps are wanted from an NBD server besides disk.Allocation; those that it
	// lacks are left out. Each makes every map query slower.
	Maps []disk.MapName
	// Connections bounds the connections to a server; 0 is its default.
	Connections int
	// References is what an image may name, such as a backing file.
	References References
	// NoReferences opens nothing that an image names, which only shows the image itself.
	NoReferences bool
	// NoUnixSocket keeps a transfer on the network though the daemon runs here.
	NoUnixSocket bool
}

// Open opens the disk at a URL and stacks the filters over it. Closing the
// returned disk closes everything below it.
func Open(ctx context.Context, rawURL string, o Options) (*disk.Disk, error) {
	u, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if err := o.TLS.check(u); err != nil {
		return nil, err
	}
	specs := make([]FilterSpec, 0, len(o.Filters))
	for _, s := range o.Filters {
		spec, err := ParseFilter(s)
		if err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	if err := checkFilters(specs); err != nil {
		return nil, err
	}
	o.ReadOnly = o.ReadOnly || keepsBase(specs)
	base, err := u.open(ctx, o)
	if err != nil {
		return nil, err
	}
	return stack(ctx, base, specs)
}

func (u URL) open(ctx context.Context, o Options) (*disk.Disk, error) {
	if o.Format != "" && !u.Local() && o.Format != "raw" {
		return nil, fmt.Errorf("%s: format %s over %s is %w", u, o.Format, u.Scheme, ErrNotBuilt)
	}
	switch u.Scheme {
	case SchemeFile, SchemeRaw, SchemeQcow2, SchemeLUKS:
		return u.openLocal(ctx, o)
	case SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix, SchemeNBDVsock, SchemeNBDSVsock:
		return u.openNBD(ctx, o)
	case SchemeHTTP, SchemeHTTPS:
		return u.openHTTP(ctx, o)
	case SchemeMem:
		return mem.Open(u.Size)
	case SchemeNull:
		return null.Open(u.Size)
	case SchemePattern:
		if o.ReadOnly {
			return pattern.Open(u.Size)
		}
		return pattern.OpenVerify(u.Size)
	}
	return nil, fmt.Errorf("%s: scheme %s is %w", u, u.Scheme, ErrNotBuilt)
}

func (u URL) openLocal(ctx context.Context, o Options) (*disk.Disk, error) {
	format, err := u.format(o.Format, o.formatFlag())
	if err != nil {
		return nil, err
	}
	if format == "" {
		if err := refuseMagic(u.Path, o.formatFlag()); err != nil {
			return nil, err
		}
	}
	fo := file.Options{Cache: file.Cache(o.Cache), AIO: file.AIO(o.AIO), ReadOnly: o.ReadOnly, ForceShare: o.ForceShare}
	if format == SchemeQcow2 {
		return openQcow2(ctx, u.Path, &o, fo)
	}
	return file.OpenDisk(ctx, u.Path, fo)
}

func (o *Options) formatFlag() string {
	if o.FormatFlag == "" {
		return "-f"
	}
	return o.FormatFlag
}

var formats = []string{"raw", "qcow2", "luks"}

// format settles the format of a local disk: "raw" or "qcow2", or "" if nobody said.
func (u URL) format(want, flag string) (string, error) {
	if want != "" && !slices.Contains(formats, want) {
		return "", &SyntaxError{What: "format", Input: want, Err: fmt.Errorf("%s wants one of %s%s", flag, strings.Join(formats, ", "), suggest(want, formats))}
	}
	scheme := u.Scheme
	if scheme == SchemeFile {
		scheme = ""
	}
	if want != "" && scheme != "" && want != scheme {
		return "", &SyntaxError{What: "disk URL", Input: u.String(), Err: fmt.Errorf("contradicts %s %s", flag, want)}
	}
	if want == "" {
		want = scheme
	}
	if want == "luks" {
		return "", fmt.Errorf("%s: format %s is %w; `%s raw` takes the file's bytes as they are", u, want, ErrNotBuilt, flag)
	}
	return want, nil
}

// Same reports whether two URLs name the same local file, by device and inode.
func Same(a, b URL) bool {
	if !a.Local() || !b.Local() {
		return false
	}
	fa, errA := os.Stat(a.Path)
	fb, errB := os.Stat(b.Path)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

// ZeroProbe tells which ways of zeroing a storage has.
type ZeroProbe = file.ZeroProbe

// ProbeZero tries each way of zeroing on the storage that path lies on, without
// changing any content; see file.ProbeZero.
func ProbeZero(ctx context.Context, path string) (*ZeroProbe, error) {
	return file.ProbeZero(ctx, path)
}

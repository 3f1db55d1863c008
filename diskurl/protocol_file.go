package diskurl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// The row of local files and block devices. It is in every build: formats lie in files,
// and copies make them.
var _ = addProtocol(&protocol{
	schemes: []string{SchemeFile},
	parse: func(s string) (Addr, error) {
		_, rest, _ := cutScheme(s)
		if host, ok := strings.CutPrefix(rest, "//"); ok && host != "" && host[0] != '/' {
			return nil, fmt.Errorf("a file URL has no host; want file:/path")
		}
		return parsePath(rest)
	},
	ticket: func(u *url.URL) (Addr, error) { return parsePath(u.Path) },
	open: func(ctx context.Context, a Addr, o *Options) (*disk.Disk, error) {
		return file.OpenDisk(ctx, a.(FileAddr).Path, fileOptions(o))
	},
	check:  func(a Addr, o *Options) error { return refuseMagic(a.(FileAddr).Path, o.formatFlag()) },
	create: createFile,
})

func fileOptions(o *Options) file.Options {
	return file.Options{Cache: file.Cache(o.Cache), AIO: file.AIO(o.AIO), ReadOnly: o.ReadOnly, ForceShare: o.ForceShare}
}

// ErrInUse: another process, or this one, uses the disk.
var ErrInUse = file.ErrInUse

// FileAddr is a file or block device of this host.
type FileAddr struct{ Path string }

// Scheme implements Addr.
func (FileAddr) Scheme() string { return SchemeFile }

// String implements Addr.
func (a FileAddr) String() string {
	if _, _, ok := cutScheme(a.Path); ok {
		return SchemeFile + ":" + a.Path
	}
	return a.Path
}

// LocalPath is the path.
func (a FileAddr) LocalPath() string { return a.Path }

func parsePath(path string) (Addr, error) {
	if strings.HasPrefix(path, "//") { // an empty authority, or slashes too many
		path = "/" + strings.TrimLeft(path, "/")
	}
	if path == "" {
		return nil, fmt.Errorf("the path is empty")
	}
	return FileAddr{path}, nil
}

// Identity is the disk.Info.ID of the file or block device at path.
func Identity(path string) (string, error) { return file.Identity(path) }

// ZeroProbe tells which ways of zeroing a storage has.
type ZeroProbe = file.ZeroProbe

// ProbeZero tries each way of zeroing on the storage that path lies on, without
// changing any content; see file.ProbeZero.
func ProbeZero(ctx context.Context, path string) (*ZeroProbe, error) {
	return file.ProbeZero(ctx, path)
}

func createFile(ctx context.Context, a Addr, o CreateOptions, lay layout) error {
	path := a.(FileAddr).Path
	switch st, err := os.Stat(path); {
	case err != nil:
		return makeFile(ctx, path, o, lay)
	case !st.Mode().IsRegular():
		return fmt.Errorf("create %s: it exists and is no regular file", a)
	case !o.Replace:
		return fmt.Errorf("create %s: %w", a, fs.ErrExist)
	}
	return replaceFile(ctx, path, o, lay)
}

// makeFile makes a file of the disk's size, or an empty one where a format lays it out.
func makeFile(ctx context.Context, path string, o CreateOptions, lay layout) error {
	size, prealloc := o.Size, file.Preallocation(o.Preallocation)
	if lay != nil {
		size, prealloc = 0, ""
	}
	if err := file.CreateMode(ctx, path, size, prealloc, o.Mode); err != nil || lay == nil {
		return err
	}
	if err := lay(ctx, FileAddr{path}); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// replaceFile puts a new image in the place of an old one that nobody uses, with its permissions. The
// name that the new one has meanwhile is not that of a killed process's remains.
func replaceFile(ctx context.Context, path string, o CreateOptions, lay layout) error {
	old, err := file.Open(ctx, path, file.Options{})
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	defer old.Close()
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	fresh := fmt.Sprintf("%s.new-%08x", path, rand.Uint32())
	o.Mode = st.Mode().Perm()
	if err := makeFile(ctx, fresh, o, lay); err != nil {
		return err
	}
	if err = os.Chmod(fresh, o.Mode); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

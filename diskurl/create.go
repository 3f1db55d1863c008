package diskurl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"

	"github.com/vmdisk/vmdisk/driver/file"
)

// CreateOptions say what Create makes.
type CreateOptions struct {
	// Size in bytes.
	Size int64
	// Format and FormatFlag are as in Options; empty is raw.
	Format, FormatFlag string
	// Preallocation is "off" (sparse), "falloc" (space reserved, reads zeros) or
	// "full" (zeros written); empty is off.
	Preallocation string
	// Replace allows an existing file to be replaced.
	Replace bool
	// Mode is the new file's, before the umask; 0 is 0644, or that of the file it replaces.
	Mode fs.FileMode
}

// Creatable reports whether the URL names a local file that does not exist yet.
func Creatable(u URL) bool {
	if !u.Local() {
		return false
	}
	_, err := os.Stat(u.Path)
	return errors.Is(err, fs.ErrNotExist)
}

// Create makes a new disk image. What has no storage to be made (an NBD export,
// a RAM disk, a block device) is refused.
func Create(ctx context.Context, rawURL string, o CreateOptions) error {
	u, err := Parse(rawURL)
	if err != nil {
		return err
	}
	if !u.Local() {
		return fmt.Errorf("%s: only local files can be created", u)
	}
	flag := o.FormatFlag
	if flag == "" {
		flag = "-f"
	}
	switch format, err := u.format(o.Format, flag); {
	case err != nil:
		return err
	case format == SchemeQcow2:
		return fmt.Errorf("%s: creating format %s is %w", u, format, ErrNotBuilt)
	}
	prealloc := file.Preallocation(o.Preallocation)
	switch st, err := os.Stat(u.Path); {
	case err != nil:
		return file.CreateMode(ctx, u.Path, o.Size, prealloc, o.Mode)
	case !st.Mode().IsRegular():
		return fmt.Errorf("create %s: it exists and is no regular file", u)
	case !o.Replace:
		return fmt.Errorf("create %s: %w; --force replaces it", u, fs.ErrExist)
	}
	return replace(ctx, u.Path, o.Size, prealloc)
}

// File is the URL of a local file.
func File(path string) URL { return URL{Scheme: SchemeFile, Path: path} }

// At is the URL with another path.
func (u URL) At(path string) URL {
	u.Path = path
	return u
}

// Identity is the disk.Info.ID of the file or block device at path.
func Identity(path string) (string, error) { return file.Identity(path) }

// replace puts a new image in the place of an old one that nobody uses, with its permissions. The
// name that the new one has meanwhile is not that of a killed process's remains.
func replace(ctx context.Context, path string, size int64, prealloc file.Preallocation) error {
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
	if err := file.CreateMode(ctx, fresh, size, prealloc, st.Mode().Perm()); err != nil {
		return err
	}
	if err = os.Chmod(fresh, st.Mode().Perm()); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

package diskurl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	if _, err := u.format(o.Format, flag); err != nil {
		return err
	}
	prealloc := file.Preallocation(o.Preallocation)
	switch st, err := os.Stat(u.Path); {
	case err != nil:
		return file.Create(ctx, u.Path, o.Size, prealloc)
	case !st.Mode().IsRegular():
		return fmt.Errorf("create %s: it exists and is no regular file", u)
	case !o.Replace:
		return fmt.Errorf("create %s: %w; --force replaces it", u, fs.ErrExist)
	}
	return replace(ctx, u.Path, o.Size, prealloc)
}

// replace puts a new image in the place of an old one that nobody uses.
func replace(ctx context.Context, path string, size int64, prealloc file.Preallocation) error {
	old, err := file.Open(ctx, path, file.Options{})
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	defer old.Close()
	fresh := path + ".new"
	if err := file.Create(ctx, fresh, size, prealloc); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	return nil
}

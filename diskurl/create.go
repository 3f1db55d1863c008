package diskurl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vmdisk/vmdisk/disk"
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
	// Backing is the backing file's name as it goes into an image, and BackingFormat its format.
	Backing, BackingFormat string
	// Layout are options of the format, KEY=VALUE each with commas between them, by
	// the names of `qemu-img create -o`.
	Layout []string
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
	_, err := os.Stat(u.Path())
	return errors.Is(err, fs.ErrNotExist)
}

// Create makes a new disk image. What has no storage to be made (an NBD export,
// a RAM disk, a block device) is refused.
func Create(ctx context.Context, rawURL string, o CreateOptions) error {
	u, err := Parse(rawURL)
	if err != nil {
		return err
	}
	p, err := u.protocol()
	if err != nil {
		return err
	}
	if p.create == nil {
		return fmt.Errorf("%s: only local files can be created", u.Redacted())
	}
	list, err := u.formatList(o.Format, flagOr(o.FormatFlag))
	if err != nil {
		return err
	}
	rows, err := u.formatRows(list, flagOr(o.FormatFlag))
	if err != nil {
		return err
	}
	return u.create(ctx, p, rows, o)
}

// create makes the storage, and has a format that is not raw lay itself out on it.
func (u URL) create(ctx context.Context, p *protocol, rows []*format, o CreateOptions) error {
	var image *format
	for _, f := range rows {
		switch {
		case f.name == FormatRaw:
		case f.create == nil || image != nil:
			return fmt.Errorf("%s: creating format %s is %w", u.Redacted(), f.name, ErrNotBuilt)
		default:
			image = f
		}
	}
	if image == nil {
		if o.Backing != "" || o.BackingFormat != "" || len(o.Layout) > 0 {
			return fmt.Errorf("%s: raw images have neither a backing file nor options; -f qcow2 makes one that has", u.Redacted())
		}
		return p.create(ctx, u.Addr, o, nil)
	}
	return p.create(ctx, u.Addr, o, func(ctx context.Context, at Addr) error {
		child, err := p.open(ctx, at, &Options{})
		if err != nil {
			return err
		}
		if err = image.lay(ctx, child, o); err != nil {
			err = fmt.Errorf("create %s: %w", u.Redacted(), err)
		}
		return errors.Join(err, child.Close())
	})
}

// lay lays an empty image out, which is on stable storage before it takes its name.
func (f *format) lay(ctx context.Context, child *disk.Disk, o CreateOptions) error {
	if err := f.create(ctx, child, o); err != nil {
		return err
	}
	return child.Flush(ctx)
}

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// limitTo sets how much of a user's device is used: as much as other backings have,
// since a device that is wider is not the same work.
func (b *builder) limitTo(ctx context.Context, m *image) error {
	size, err := deviceBytes(m.path)
	if err != nil {
		return err
	}
	want := b.s.o.Size
	if b.format() == luks {
		template, _, err := b.luksTemplate(ctx)
		if err != nil {
			return err
		}
		st, err := os.Stat(template)
		if err != nil {
			return err
		}
		want = st.Size()
	}
	if size > want {
		m.limit = want
	}
	return nil
}

// openFree opens a disk to write to it. A device that was just closed can be busy for
// a moment: a process that is being forked still holds it until it runs its program.
func openFree(ctx context.Context, url string, o diskurl.Options) (d *disk.Disk, err error) {
	err = retry(ctx, func() error {
		d, err = diskurl.Open(ctx, url, o)
		return err
	})
	return d, err
}

// forkTime is how long that moment may be where a device may be truly in use.
const forkTime = time.Second

// openExclusive opens a device that nobody else has open for writing.
func openExclusive(ctx context.Context, path string) (f *os.File, err error) {
	ctx, cancel := context.WithTimeout(ctx, forkTime)
	defer cancel()
	err = retry(ctx, func() error {
		f, err = os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
		return err
	})
	return f, err
}

func deviceBytes(path string) (_ int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Seek(0, 2)
}

// usesAll is the part of a set-up that uses the whole of a block device, "" for none.
func usesAll(setup spec.Setup, client string) string {
	switch {
	case setup.Server == "iscsi":
		return "server=iscsi"
	case client == spec.ClientGuest && setup.Device == "vhost-scsi":
		return "device=vhost-scsi"
	}
	return ""
}

// limited adds the filter that keeps vmdisk to the part that is used.
func (m image) limited(filters []string) []string {
	if m.limit == 0 {
		return filters
	}
	return append(slices.Clone(filters), fmt.Sprintf("limit:size=%d", m.limit))
}

// below are QEMU's options of what an image lies in, each name with that prefix.
func (m image) below(prefix string) string {
	if m.limit == 0 {
		return fmt.Sprintf("%[1]sdriver=%[2]s,%[1]sfilename=%[3]s", prefix, m.protocol(), quote(m.path))
	}
	inner := image{path: m.path, block: m.block}
	return fmt.Sprintf("%[1]sdriver=raw,%[1]ssize=%[2]d,%[3]s", prefix, m.limit, inner.below(prefix+"file."))
}

package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// writeStep is large: this is preparation, and no measurement.
const writeStep = 4 << 20

// writeAll writes every block of every image once, with what it holds.
func (b *builder) writeAll(ctx context.Context, images []image) error {
	for i, m := range images {
		if err := b.writeImage(ctx, i, m); err != nil {
			return fmt.Errorf("node %s: write every block: %w", nodeName(i), err)
		}
	}
	return nil
}

// writeImage writes formats that we cannot through a server of the moment.
func (b *builder) writeImage(ctx context.Context, i int, m image) (err error) {
	switch {
	case m.path == "":
		return errors.New("pass=second is for files and block devices: pass=first")
	case m.format == raw:
		return rewrite(ctx, rawURL(m.path), diskurl.Options{FileOptions: diskurl.FileOptions{Cache: m.cacheForMaking()}, Filters: m.limited(nil)})
	}
	work := b.s.newScope()
	defer func() { err = errors.Join(err, work.close(ctx)) }()
	socket := filepath.Join(b.own, nodeName(i)+".fill")
	p, err := work.start("server "+nodeName(i), qemuNBD(m, serving{socket: socket, cache: m.cacheForMaking(), aio: "threads"}))
	if err != nil {
		return err
	}
	if err := p.await(ctx, socket); err != nil {
		return err
	}
	return rewrite(ctx, nbdURL(socket, ""), diskurl.Options{})
}

// rewrite reads each block of a disk and writes it back.
func rewrite(ctx context.Context, url string, o diskurl.Options) (err error) {
	d, err := openFree(ctx, url, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := rewriteDisk(ctx, d); err != nil {
		return err
	}
	return d.Flush(ctx)
}

func rewriteDisk(ctx context.Context, d *disk.Disk) error {
	buf := make([]byte, writeStep)
	for off := int64(0); off < d.Size(); {
		p := buf[:min(writeStep, d.Size()-off)]
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := d.ReadAt(ctx, p, off); err != nil {
			return err
		}
		if err := d.WriteAt(ctx, p, off, 0); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// testDisk is the node's disk, prepared.
type testDisk struct {
	opener   Opener
	path     string // of a local file or device
	mount    string // of its file system, "" if jobs use the disk itself
	guest    bool
	image    *imageRoot // fio's root, nil if none
	prepared Prepared
}

// testMount is where a guest's file system is.
const testMount = "/mnt/test"

func (d *testDisk) close() {
	if d == nil {
		return
	}
	d.image.close() // it has the mount too
	if d.mount != "" && unix.Unmount(d.mount, 0) != nil {
		_ = unix.Unmount(d.mount, unix.MNT_DETACH)
	}
}

// openDisk finds the disk and makes it ready. tell gets the share of a fill that
// is done.
func openDisk(ctx context.Context, p Prepare, tell func(share float64)) (_ *testDisk, err error) {
	d := &testDisk{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if p.URL != "" {
		err = d.hostDisk(p)
	} else {
		err = d.guestDisk(ctx, p)
	}
	if err != nil {
		return nil, err
	}
	if d.prepared.Size, err = d.size(ctx); err != nil {
		return nil, err
	}
	if p.Fill {
		if err := d.fill(ctx, tell); err != nil {
			return nil, fmt.Errorf("fill: %w", err)
		}
	}
	if d.guest && p.FileSystem != "" && p.FileSystem != "none" {
		if err := d.mountOn(testMount, p.FileSystem); err != nil {
			return nil, err
		}
	}
	if p.Image {
		if d.image, err = openImage(ctx, d.prepared.Device); err != nil {
			return nil, err
		}
	}
	d.prepared.Fio = fioVersion(d.image.path())
	return d, nil
}

func (d *testDisk) hostDisk(p Prepare) error {
	u, err := diskurl.Parse(p.URL)
	if err != nil {
		return err
	}
	if u.Local() {
		d.path = u.Path()
	}
	d.opener = Opener{URL: p.URL, Options: diskurl.Options{FileOptions: diskurl.FileOptions{Cache: p.Cache, AIO: p.AIO}, Filters: p.Filters}}
	return nil
}

func (d *testDisk) guestDisk(ctx context.Context, p Prepare) error {
	name, err := theSys.find(ctx, p.Serial)
	if err != nil {
		return err
	}
	d.guest, d.path = true, "/dev/"+name
	d.opener = Opener{URL: "raw:" + d.path}
	d.prepared.Device = name
	d.prepared.Scheduler, err = theSys.setScheduler(name, p.Scheduler)
	return err
}

func (d *testDisk) mountOn(dir, kind string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(d.path, dir, kind, unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s as %s: %w", d.path, kind, err)
	}
	d.mount, d.prepared.Mount = dir, dir
	return nil
}

func (d *testDisk) size(ctx context.Context) (int64, error) {
	o := d.opener.Options
	o.ReadOnly = true
	x, err := diskurl.Open(ctx, d.opener.URL, o)
	if err != nil {
		return 0, err
	}
	size := x.Info().Size
	return size, x.Close()
}

// Of a fill: requests of fillSize, fillDepth at a time. Each sector begins with its
// own place.
const (
	fillSize  = 1 << 20
	fillDepth = 4
	sector    = 512
)

// fill writes every block of the disk, with data that does not compress and
// differs from block to block.
func (d *testDisk) fill(ctx context.Context, tell func(float64)) (err error) {
	o := d.opener.Options
	if d.guest {
		o.Cache = "none"
	}
	x, err := diskurl.Open(ctx, d.opener.URL, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	f := filler{disk: x, size: x.Info().Size, tell: tell}
	g, all := errgroup.WithContext(ctx)
	for i := range fillDepth {
		g.Go(func() error { return f.run(all, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return x.Flush(ctx)
}

// filler is a fill under way; several goroutines run it.
type filler struct {
	disk *disk.Disk
	size int64
	next atomic.Int64
	tell func(share float64)
}

// run writes blocks until all are taken. The first one tells how far that is.
func (f *filler) run(ctx context.Context, number int) error {
	buf := make([]byte, fillSize)
	// Random once and stamped for each block: making it anew would be half of an
	// emulated guest's work.
	if _, err := rand.NewChaCha8([32]byte{byte(number)}).Read(buf); err != nil {
		return err
	}
	last := time.Now()
	for {
		off := f.next.Add(fillSize) - fillSize
		if off >= f.size {
			return nil
		}
		p := buf[:min(fillSize, f.size-off)]
		for i := 0; i+8 <= len(p); i += sector {
			binary.LittleEndian.PutUint64(p[i:], uint64(off+int64(i)+1)*0x9e3779b97f4a7c15)
		}
		if err := f.disk.WriteAt(ctx, p, off, 0); err != nil {
			return err
		}
		if number == 0 && time.Since(last) > beat {
			last = time.Now()
			f.tell(float64(off) / float64(f.size))
		}
	}
}

package file

import (
	"context"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/uring"
)

// Inspect tells people what lies below the disk and how it is used.
func (f *File) Inspect(ctx context.Context) ([]disk.Attr, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return nil, err
	}
	attrs := []disk.Attr{
		{Name: "path", Value: f.path},
		{Name: "cache", Value: f.opts.Cache.String()},
		{Name: "aio", Value: f.aio()},
	}
	if f.blockDev {
		attrs = append(attrs, disk.Attr{Name: "storage", Value: "block device"},
			disk.Attr{Name: "logical sector", Value: f.sector},
			disk.Attr{Name: "write zeroes max", Value: f.maxZeroes},
			disk.Attr{Name: "discard max", Value: f.maxDiscard})
	} else {
		attrs = append(attrs, disk.Attr{Name: "storage", Value: fsName(f.fsType)},
			disk.Attr{Name: "allocated", Value: st.Blocks * 512})
	}
	if f.opts.Cache.direct() {
		attrs = append(attrs, disk.Attr{Name: "direct alignment", Value: f.ioAlign},
			disk.Attr{Name: "memory alignment", Value: f.memAlign})
	}
	if refused := f.refusals(); len(refused) > 0 {
		attrs = append(attrs, disk.Attr{Name: "refused", Value: refused})
	}
	return attrs, nil
}

// aio says what queues will use.
func (f *File) aio() string {
	if f.opts.AIO == Threads || f.opts.AIO != IOUring && (f.inMemory || uring.Probe() != nil) {
		return string(Threads)
	}
	return string(IOUring)
}

func (f *File) refusals() []string {
	var list []string
	for m := range numModes {
		if errno := f.modes[m].refused.Load(); errno != 0 {
			list = append(list, strings.Join([]string{m.String(), errnoName(unix.Errno(errno))}, ": "))
		}
	}
	return list
}

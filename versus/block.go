package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// loop attaches a file as a block device that reads and writes it directly.
func (e *Env) loop(ctx context.Context, file string) (string, error) {
	r, err := peer.Run(ctx, "losetup", "--find", "--show", "--direct-io=on", file)
	if err != nil {
		return "", err
	}
	device := strings.TrimSpace(r.Stdout)
	e.Defer(func() error {
		_, err := peer.Run(context.Background(), "losetup", "--detach", device)
		return err
	})
	return device, nil
}

// toBlock: our copy to a block device against fio, which only writes the same
// extents and reads nothing.
func toBlock() Case {
	return Case{
		Name: "copy/to-block-direct", Unit: Seconds, Short: true,
		Goals: []Goal{against("fio", 1.05)},
		What:  "the real image's data to a block device with O_DIRECT, flushed (the device is known to be zero)",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			if os.Geteuid() != 0 {
				return nil, fmt.Errorf("%w: needs root for a loop device", errSkip)
			}
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			return blockContenders(ctx, e, image)
		},
	}
}

func blockContenders(ctx context.Context, e *Env, image string) ([]Contender, error) {
	st, err := os.Stat(image)
	if err != nil {
		return nil, err
	}
	backing := e.Path("backing")
	if err := sparse(backing, st.Size()); err != nil {
		return nil, err
	}
	device, err := e.loop(ctx, backing)
	if err != nil {
		return nil, err
	}
	iolog := e.Path("iolog")
	if err := writeIOLog(image, device, iolog); err != nil {
		return nil, err
	}
	on := func(name string, argv ...string) Contender {
		return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
			if err := punch(backing, st.Size()); err != nil {
				return Sample{}, err
			}
			settle()
			s, err := timed(ctx, nil, func() error { return durable(device) }, argv...)
			if err == nil && round == 0 && name != "fio" {
				err = equal(ctx, image, device)
			}
			return s, err
		}}
	}
	qemu := on("qemu-img convert -W", "qemu-img", "convert", "-W", "-n", "--target-is-zero", "-t", "none", "-f", "raw", "-O", "raw", image, device)
	qemu.Info = true
	return []Contender{
		on(oursName+" copy", e.Bin, "copy", "--progress", "none", "--cache", "none", "--target-is-zero", "raw:"+image, "raw:"+device),
		on("fio", "fio", "--name=extents", "--ioengine=io_uring", "--direct=1", "--iodepth=16", "--read_iolog="+iolog,
			"--replay_no_stall=1", "--fsync_on_close=1", "--output="+e.Path("fio.out")),
		qemu,
	}, nil
}

// punch makes the backing file of a loop device empty again.
func punch(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, size)
	return errors.Join(err, f.Sync(), f.Close())
}

// writeIOLog writes the extents of image as a trace that fio replays on device,
// in writes of at most 1 MiB.
func writeIOLog(image, device, iolog string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "fio version 2 iolog\n%s add\n%s open\n", device, device)
	err := eachMiB(image, func(off, n int64) error {
		fmt.Fprintf(&b, "%s write %d %d\n", device, off, n)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "%s close\n", device)
	return os.WriteFile(iolog, []byte(b.String()), 0o600)
}

// eachMiB calls do for the data of image, at most 1 MiB at a time.
func eachMiB(image string, do func(off, n int64) error) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("extents of %s: %w", image, err)
		}
		if off, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("extents of %s: %w", image, err)
		}
		for ; data < off; data += 1 << 20 {
			if err := do(data, min(1<<20, off-data)); err != nil {
				return err
			}
		}
	}
}

// reflinkCopy: on XFS a copy shares its blocks.
func reflinkCopy() Case {
	return Case{
		Name: "copy/xfs-reflink", Unit: Seconds, Short: true,
		Goals: []Goal{atMost(1)},
		What:  "the real image on one XFS file system; a copy that does not share its blocks is an error",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			if os.Geteuid() != 0 {
				return nil, fmt.Errorf("%w: needs root for a mount", errSkip)
			}
			mnt, err := e.mountXFS(ctx)
			if err != nil {
				return nil, err
			}
			cached, err := peer.RealImage(ctx)
			if err != nil {
				return nil, err
			}
			image, dst := mnt+"/image", mnt+"/copy"
			if _, err := peer.Run(ctx, "cp", "--sparse=always", cached, image); err != nil {
				return nil, err
			}
			return []Contender{
				shared(fileCopy(oursName+" copy", e, image, dst, e.Bin, "copy", "--progress", "none", "raw:"+image, "raw:"+dst), dst),
				shared(fileCopy("cp --reflink=always", e, image, dst, "cp", "--reflink=always", image, dst), dst),
			}, nil
		},
	}
}

// shared makes it an error that a copy does not share its extents.
func shared(k Contender, dst string) Contender {
	run := k.Run
	k.Run = func(ctx context.Context, round int) (Sample, error) {
		s, err := run(ctx, round)
		if err != nil {
			return s, err
		}
		r, err := peer.Run(ctx, "filefrag", "-v", dst)
		if err != nil {
			return s, err
		}
		if !strings.Contains(r.Stdout, "shared") {
			return s, fmt.Errorf("%s shares no blocks with its source", dst)
		}
		return s, nil
	}
	return k
}

func (e *Env) mountXFS(ctx context.Context) (string, error) {
	if err := peer.Need("mkfs.xfs", "losetup", "mount"); err != nil {
		return "", err
	}
	file, mnt := e.Path("xfs"), e.Path("mnt")
	if err := sparse(file, 8<<30); err != nil {
		return "", err
	}
	if _, err := peer.Run(ctx, "mkfs.xfs", "-q", "-m", "reflink=1", file); err != nil {
		return "", err
	}
	device, err := e.loop(ctx, file)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount(device, mnt, "xfs", 0, ""); err != nil {
		return "", fmt.Errorf("mount %s: %w", device, err)
	}
	e.Defer(func() error { return unix.Unmount(mnt, unix.MNT_DETACH) })
	return mnt, nil
}

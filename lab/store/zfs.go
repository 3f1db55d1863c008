package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/diskurl"
)

// volBlock is the block size of volumes where cluster-size does not say another.
const volBlock = 4 << 10

// zpool is a ZFS pool on a file of ours.
type zpool struct {
	run  runner
	name string
	file string
	// sys and dev are /sys and /dev.
	sys, dev string
}

func (z zpool) do(ctx context.Context, name string, args ...string) error {
	_, err := z.run(ctx, command{name: name, args: args})
	return err
}

// create makes the pool; it is not written to the host's cache file, or the host
// would import it again after a boot.
func (z zpool) create(ctx context.Context) error {
	return z.do(ctx, "zpool", "create", "-o", "ashift=12", "-o", "cachefile=none", "-O", "mountpoint=none", "-O", "compression=off", z.name, z.file)
}

func (z zpool) destroy(ctx context.Context) error { return z.do(ctx, "zpool", "destroy", "-f", z.name) }

// volume makes a sparse one: space is taken when it is written, as in files.
func (z zpool) volume(ctx context.Context, name string, size, block int64) error {
	return z.do(ctx, "zfs", "create", "-s", "-b", strconv.FormatInt(block, 10), "-V", strconv.FormatInt(size, 10), z.name+"/"+name)
}

func (z zpool) clone(ctx context.Context, origin, name string) error {
	return z.do(ctx, "zfs", "clone", z.name+"/"+origin+"@base", z.name+"/"+name)
}

func (z zpool) snapshot(ctx context.Context, origin string) error {
	return z.do(ctx, "zfs", "snapshot", z.name+"/"+origin+"@base")
}

// device waits for a volume's device node. Without udev there is none by name;
// zvol_id then tells which zd device it is.
func (z zpool) device(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	named := filepath.Join(z.dev, "zvol", z.name, name)
	for {
		if _, err := os.Stat(named); err == nil {
			return named, nil
		}
		numbered, err := filepath.Glob(filepath.Join(z.sys, "block/zd*"))
		if err != nil {
			return "", err
		}
		for _, n := range numbered {
			path := filepath.Join(z.dev, filepath.Base(n))
			out, err := z.run(ctx, command{name: "/lib/udev/zvol_id", args: []string{path}})
			if err == nil && strings.TrimSpace(out) == z.name+"/"+name {
				return path, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("volume %s/%s: no device appeared: %w", z.name, name, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (z zpool) newVolume(ctx context.Context, name string, size, block int64) (string, error) {
	if err := z.volume(ctx, name, size, block); err != nil {
		return "", err
	}
	return z.device(ctx, name)
}

// zvol makes the volumes of a set in a pool of their own.
func (b *builder) zvol(ctx context.Context, kind string) ([]image, error) {
	size, block := b.deviceSize(), int64(volBlock)
	if b.setup.ClusterSize > 0 {
		block = b.setup.ClusterSize
	}
	size = (size + block - 1) / block * block
	z, err := b.pool(ctx, size*int64(b.nodes+1)*5/4+zfsRoom)
	if err != nil {
		return nil, err
	}
	if kind == "zvol" {
		return b.each(func(i int) (image, error) {
			path, err := z.newVolume(ctx, nodeName(i), size, block)
			if err != nil {
				return image{}, err
			}
			return b.blockImage(ctx, path)
		})
	}
	golden, err := z.newVolume(ctx, "golden", size, block)
	if err != nil {
		return nil, err
	}
	snapped := false
	return b.clones(ctx, golden, func(i int) (string, error) {
		if !snapped {
			if err := z.snapshot(ctx, "golden"); err != nil {
				return "", err
			}
			snapped = true
		}
		if err := z.clone(ctx, "golden", nodeName(i)); err != nil {
			return "", err
		}
		return z.device(ctx, nodeName(i))
	})
}

// zfsRoom is what a pool keeps for itself.
const zfsRoom = 512 << 20

func (b *builder) pool(ctx context.Context, size int64) (zpool, error) {
	z := zpool{run: b.s.run, name: fmt.Sprintf("vmdisk%d_%d", os.Getpid(), b.s.nextID), file: filepath.Join(b.own, "zfs.img"), sys: "/sys", dev: "/dev"}
	if err := diskurl.Create(ctx, rawURL(z.file), diskurl.CreateOptions{Size: size}); err != nil {
		return z, err
	}
	if err := b.c.record(entry{Kind: kindPool, Name: z.name, Path: z.file}); err != nil {
		return z, err
	}
	return z, z.create(ctx)
}

// undoPool destroys a pool, if it lies on our file.
func (s *Store) undoPool(ctx context.Context, e entry) error {
	if err := s.ours(e.Path); err != nil {
		return err
	}
	out, err := s.run(ctx, command{name: "zpool", args: []string{"list", "-v", "-H", "-P", e.Name}})
	var failed *commandError
	switch {
	case errors.As(err, &failed) && strings.Contains(failed.stderr, "no such pool"):
		return nil // it was not made yet
	case err != nil:
		return err
	case !strings.Contains(out, e.Path):
		return fmt.Errorf("the pool does not lie on %s: it is not ours", e.Path)
	}
	return zpool{run: s.run, name: e.Name}.destroy(ctx)
}

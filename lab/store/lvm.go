package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
)

// LVM's extents, and the space besides them that a group and a thin pool take.
const (
	extent  = 4 << 20
	lvmRoom = 256 << 20
)

// extents rounds a size up to whole extents.
func extents(n int64) int64 { return (n + extent - 1) / extent * extent }

// group is an LVM volume group on one loop device, and nothing else.
type group struct {
	run    runner
	name   string
	device string // path
}

// lvm runs an LVM command that sees no device but ours, whatever the host has, and
// makes device nodes itself as no udev may run.
func (g group) lvm(ctx context.Context, name string, args ...string) error {
	config := fmt.Sprintf(`devices{global_filter=["a|^%s$|","r|.*|"] use_devicesfile=0 scan_lvs=0} activation{udev_sync=0 udev_rules=0}`, g.device)
	_, err := g.run(ctx, command{name: name, args: append([]string{"--config", config, "--yes"}, args...), env: []string{"DM_DISABLE_UDEV=1"}})
	return err
}

func (g group) path(volume string) string { return "/dev/" + g.name + "/" + volume }

func (g group) create(ctx context.Context) error {
	if err := g.lvm(ctx, "pvcreate", g.device); err != nil {
		return err
	}
	return g.lvm(ctx, "vgcreate", "--physicalextentsize", sizeArg(extent), g.name, g.device)
}

func (g group) remove(ctx context.Context) error { return g.lvm(ctx, "vgremove", "--force", g.name) }

// linear makes an ordinary volume. It is not wiped, as that would write: what is
// below is a new sparse file.
func (g group) linear(ctx context.Context, volume string, size int64) error {
	return g.lvm(ctx, "lvcreate", "--wipesignatures", "n", "--zero", "n", "--size", sizeArg(size), "--name", volume, g.name)
}

// snapshot makes a copy-on-write volume over another one, with space of its own.
func (g group) snapshot(ctx context.Context, origin, volume string, size int64) error {
	return g.lvm(ctx, "lvcreate", "--snapshot", "--size", sizeArg(size), "--name", volume, g.name+"/"+origin)
}

func (g group) pool(ctx context.Context, size int64) error {
	return g.lvm(ctx, "lvcreate", "--type", "thin-pool", "--poolmetadatasize", sizeArg(lvmRoom/4), "--size", sizeArg(size), "--name", "pool", g.name)
}

func (g group) thin(ctx context.Context, volume string, size int64) error {
	return g.lvm(ctx, "lvcreate", "--type", "thin", "--virtualsize", sizeArg(size), "--thinpool", "pool", "--name", volume, g.name)
}

func (g group) thinSnapshot(ctx context.Context, origin, volume string) error {
	return g.lvm(ctx, "lvcreate", "--snapshot", "--setactivationskip", "n", "--name", volume, g.name+"/"+origin)
}

// sizeArg is a size in bytes for LVM, which would take a bare number for MiB.
func sizeArg(n int64) string { return strconv.FormatInt(n, 10) + "b" }

// lvm makes the volumes of a set in a group of their own.
func (b *builder) lvm(ctx context.Context, kind string) ([]image, error) {
	size, own := extents(b.deviceSize()), int64(b.nodes)
	g, err := b.group(ctx, size*(own+1)*2+lvmRoom)
	if err != nil {
		return nil, err
	}
	if kind == "lvm" {
		return b.each(func(i int) (image, error) {
			if err := g.linear(ctx, nodeName(i), size); err != nil {
				return image{}, err
			}
			return b.blockImage(ctx, g.path(nodeName(i)))
		})
	}
	if kind == "lvm-thin" {
		err = g.pool(ctx, size*(own+1))
		if err == nil {
			err = g.thin(ctx, "golden", size)
		}
	} else {
		err = g.linear(ctx, "golden", size)
	}
	if err != nil {
		return nil, err
	}
	return b.clones(ctx, g.path("golden"), func(i int) (string, error) {
		if kind == "lvm-thin" {
			return g.path(nodeName(i)), g.thinSnapshot(ctx, "golden", nodeName(i))
		}
		// Room for every block to change, and LVM's own table of them.
		return g.path(nodeName(i)), g.snapshot(ctx, "golden", nodeName(i), extents(size+size/64+extent))
	})
}

// clones puts the golden disk on a volume and makes clones of it.
func (b *builder) clones(ctx context.Context, golden string, clone func(i int) (string, error)) ([]image, error) {
	if b.wantsGolden() {
		m, err := blockDevice(golden)
		if err == nil {
			err = b.copyInto(ctx, m, fillData)
		}
		if err != nil {
			return nil, err
		}
	}
	return b.each(func(i int) (image, error) {
		path, err := clone(i)
		if err != nil {
			return image{}, err
		}
		return blockDevice(path)
	})
}

// group makes one on a sparse file.
func (b *builder) group(ctx context.Context, size int64) (group, error) {
	file := filepath.Join(b.own, "lvm.img")
	g := group{run: b.s.run, name: fmt.Sprintf("vmdisk%d_%d", os.Getpid(), b.s.nextID)}
	if err := diskurl.Create(ctx, rawURL(file), diskurl.CreateOptions{Size: size}); err != nil {
		return g, err
	}
	dev, err := b.c.loop(file)
	if err != nil {
		return g, err
	}
	g.device = "/dev/" + dev
	if err := b.c.record(entry{Kind: kindVG, Name: g.name, Path: file}); err != nil {
		return g, err
	}
	return g, g.create(ctx)
}

// undoVG removes a group. Its commands see only the loop device over our file, so
// that they can't meet a group of somebody else.
func (s *Store) undoVG(ctx context.Context, e entry) error {
	if err := s.ours(e.Path); err != nil {
		return err
	}
	names, err := loopsOf(e.Path)
	if err != nil || len(names) == 0 {
		return err
	}
	err = group{run: s.run, name: e.Name, device: "/dev/" + names[0]}.remove(ctx)
	if err != nil && strings.Contains(err.Error(), "not found") { // it was not made yet
		return nil
	}
	return err
}

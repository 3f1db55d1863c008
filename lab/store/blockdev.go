package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskurl"
)

// tmpfs puts a set's images on a RAM disk of its own.
func (b *builder) tmpfs(ctx context.Context) ([]image, error) {
	_, mem := b.s.need(b.setup, b.nodes, b.s.o.Size)
	dir := filepath.Join(b.own, "ram")
	if err := b.c.folder(dir); err != nil {
		return nil, err
	}
	if err := b.c.mount("vmdisk-lab", dir, "tmpfs", fmt.Sprintf("size=%d,mode=700", mem)); err != nil {
		return nil, err
	}
	return b.each(func(i int) (image, error) { return b.file(ctx, dir, i) })
}

// loopDevice makes a block device over a copy of the golden disk.
func (b *builder) loopDevice(ctx context.Context, i int) (image, error) {
	name := filepath.Join(b.dir, nodeName(i)+".loop")
	m := image{path: name, format: raw, device: b.deviceBelow(b.dir)}
	var err error
	if b.format() == luks {
		err = b.luksRaw(ctx, name)
	} else {
		err = b.rawFile(ctx, m)
	}
	if err != nil {
		return m, err
	}
	dev, err := b.c.loop(name)
	if err != nil {
		return m, err
	}
	m.path, m.block, m.device = "/dev/"+dev, true, dev
	if b.format() == luks {
		return b.luksImage(ctx, m)
	}
	return m, nil
}

// blockImage is an image on a block device that is new and reads as zeros.
func (b *builder) blockImage(ctx context.Context, path string) (image, error) {
	m, err := blockDevice(path)
	switch {
	case err != nil:
		return m, err
	case b.format() == luks:
		return b.luksImage(ctx, m)
	case b.wantsGolden():
		return m, b.copyInto(ctx, m, fillData)
	}
	return m, nil
}

// blockDevice describes one by its path, which may be a link.
func blockDevice(path string) (image, error) {
	real, err := filepath.EvalSymlinks(path)
	return image{path: path, block: true, format: raw, device: filepath.Base(real)}, err
}

// device puts the golden disk on a device of the user.
func (b *builder) device(ctx context.Context, path string) (image, error) {
	if isPCI(path) {
		return image{source: pciSource(b.setup.Device, path, b.s.o.Size)}, nil
	}
	room := room{size: b.deviceSize(), all: usesAll(b.setup, b.client)}
	if why := b.s.deviceProblem(ctx, path, room); why != "" {
		return image{}, errors.New(why)
	}
	m, err := blockDevice(path)
	if err == nil {
		err = b.limitTo(ctx, &m)
	}
	if err != nil {
		return m, err
	}
	uuid, err := b.goldenUUID(ctx)
	if err != nil {
		return m, err
	}
	if err := b.c.record(entry{Kind: kindDevice, Path: path, Name: uuid}); err != nil {
		return m, err
	}
	b.s.used[path] = true
	if b.format() == luks {
		return b.luksImage(ctx, m)
	}
	return m, b.copyInto(ctx, m, fillHoles)
}

// deviceSize is the least that a block device has to have.
func (b *builder) deviceSize() int64 {
	if b.format() == luks {
		return b.s.o.Size + luksRoom
	}
	return b.s.o.Size
}

// goldenUUID names the golden disk's file system, by which a device is known to
// hold our data and nobody else's. It is empty without a file system.
func (b *builder) goldenUUID(ctx context.Context) (string, error) {
	golden, err := b.golden(ctx)
	if err != nil || b.s.o.FileSystem == "none" {
		return "", err
	}
	return b.s.uuid(ctx, golden)
}

// deviceProblem says why a user's device may not be written to, "" if it may.
func (s *Store) deviceProblem(ctx context.Context, path string, r room) string {
	return host{run: s.run}.deviceProblem(ctx, path, r, s.used[path])
}

// uuid of the file system or image on a device or in a file.
func (s *Store) uuid(ctx context.Context, path string) (string, error) {
	out, err := s.run(ctx, command{name: "blkid", args: []string{"-p", "-s", "UUID", "-o", "value", path}})
	if err != nil && !isNothing(err) {
		return "", err
	}
	return strings.TrimSpace(out), nil
}

// undoDevice blanks a device of the user that has our data, so that it can be used
// again. What a killed run left is only touched if it still has our file system:
// its owner may have used it since.
func (s *Store) undoDevice(ctx context.Context, e entry) error {
	if !s.used[e.Path] {
		if e.Name == "" {
			return nil // it has no signature of ours
		}
		uuid, err := s.uuid(ctx, e.Path)
		if err != nil || uuid != e.Name {
			return err
		}
	}
	if err := blank(ctx, e.Path); err != nil {
		return err
	}
	delete(s.used, e.Path)
	return nil
}

// edge is what holds all signatures, at the start and at the end of a device.
const edge = 1 << 20

// blank zeroes what makes a device look used.
func blank(ctx context.Context, path string) (err error) {
	d, err := openFree(ctx, rawURL(path), diskurl.Options{FileOptions: diskurl.FileOptions{Cache: "none"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	n := min(edge, d.Size())
	if err := d.Zero(ctx, 0, n, 0); err != nil {
		return err
	}
	if err := d.Zero(ctx, d.Size()-n, n, 0); err != nil {
		return err
	}
	return d.Flush(ctx)
}

// queueFolder is where a block device's queue is described; a partition has its
// disk's.
func queueFolder(device string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join("/sys/class/block", device))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	return filepath.Join(dir, "queue"), nil
}

// scheduler sets that of the devices below the images, until the set is closed.
func (b *builder) scheduler(images []image) error {
	if b.setup.HostScheduler == "default" || b.setup.HostScheduler == "" {
		return nil
	}
	done := map[string]bool{}
	for _, m := range images {
		if m.device == "" || done[m.device] {
			continue
		}
		done[m.device] = true
		dir, err := queueFolder(m.device)
		if err != nil {
			return fmt.Errorf("scheduler of %s: %w", m.device, err)
		}
		if err := b.setScheduler(filepath.Join(dir, "scheduler")); err != nil {
			return fmt.Errorf("scheduler of %s: %w", m.device, err)
		}
	}
	return nil
}

func (b *builder) setScheduler(attr string) error {
	text, err := os.ReadFile(attr)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "[")
	old, _, ok := strings.Cut(rest, "]")
	if !ok {
		return fmt.Errorf("%s says %q", attr, text)
	}
	if err := b.c.record(entry{Kind: kindScheduler, Path: attr, Name: old}); err != nil {
		return err
	}
	return os.WriteFile(attr, []byte(b.setup.HostScheduler), 0)
}

// undoScheduler restores one. A device that has gone has none.
func undoScheduler(e entry) error {
	if !below("/sys", e.Path) || filepath.Base(e.Path) != "scheduler" {
		return fmt.Errorf("%s is no scheduler", e.Path)
	}
	err := os.WriteFile(e.Path, []byte(e.Name), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

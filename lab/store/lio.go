package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// configFS is where the kernel's SCSI targets (LIO) are made.
const configFS = "/sys/kernel/config/target"

// lio is a vhost-scsi target over a block device: a backstore, and a path for
// guests to it.
type lio struct {
	root string // configFS
	name string // of the backstore
	wwpn string
	// rmdir is of configfs, where a folder goes with the attributes in it.
	rmdir func(path string) error
}

func (l lio) store() string { return filepath.Join(l.root, "core/iblock_0", l.name) }
func (l lio) target() string {
	return filepath.Join(l.root, "vhost", l.wwpn)
}
func (l lio) group() string { return filepath.Join(l.target(), "tpgt_1") }

// create makes them, in the order that the kernel wants.
func (l lio) create(device string) error {
	link := filepath.Join(l.group(), "lun/lun_0")
	if err := os.MkdirAll(l.store(), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.store(), "control"), []byte("udev_path="+device), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.store(), "enable"), []byte("1"), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(link, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.group(), "nexus"), []byte(l.wwpn), 0o644); err != nil {
		return err
	}
	return os.Symlink(l.store(), filepath.Join(link, l.name))
}

// remove goes the way back and passes over what is not there.
func (l lio) remove() error {
	link := filepath.Join(l.group(), "lun/lun_0")
	errs := []error{gone(os.Remove(filepath.Join(link, l.name)))}
	if nexus := filepath.Join(l.group(), "nexus"); exists(nexus) {
		// "NULL" takes it away; without one the kernel says that there is no device.
		_ = os.WriteFile(nexus, []byte("NULL"), 0o644)
	}
	for _, dir := range []string{link, l.group(), l.target(), l.store()} {
		errs = append(errs, gone(l.rmdir(dir)))
	}
	// What all targets share goes with the last one.
	for _, dir := range []string{filepath.Dir(l.target()), filepath.Dir(l.store())} {
		_ = l.rmdir(dir)
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// vhostSCSI makes a target over a node's block device.
func (b *builder) vhostSCSI(i int, m *image) error {
	l := lio{root: configFS, rmdir: unix.Rmdir, name: fmt.Sprintf("vmdisk%d_%d%s", os.Getpid(), b.s.nextID, nodeName(i)),
		wwpn: fmt.Sprintf("naa.5%06x%07x%02x", os.Getpid()&0xffffff, b.s.nextID&0xfffffff, i)}
	if err := b.c.record(entry{Kind: kindTarget, Name: l.name + " " + l.wwpn}); err != nil {
		return err
	}
	if err := l.create(m.path); err != nil {
		return fmt.Errorf("vhost-scsi target over %s: %w", m.path, err)
	}
	m.source.Driver, m.source.Path = "vhost-scsi", l.wwpn
	return nil
}

func undoTarget(e entry) error {
	name, wwpn, ok := strings.Cut(e.Name, " ")
	if !ok || !strings.HasPrefix(name, "vmdisk") || strings.Contains(e.Name, "/") {
		return fmt.Errorf("%q is no target of ours", e.Name)
	}
	return lio{root: configFS, name: name, wwpn: wwpn, rmdir: unix.Rmdir}.remove()
}

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Process is a server behind a disk.
type Process struct {
	Name string // "server a"
	PID  int
}

// Disk is a node's disk.
type Disk struct {
	// Source is how QEMU reaches it. Empty for backing=url without a server.
	Source spec.Source
	// URL is for host clients, "" where this build has no driver for it; Cache and
	// AIO go with it and are empty where they mean nothing.
	URL        string
	Cache, AIO string
	// Filters are for host clients without a server.
	Filters   []string
	Processes []Process
	// HostDevice is the host's block device below, such as loop3 or vda, "" if there
	// is none.
	HostDevice string
}

// Set is the disks of all nodes, a, b and so on.
type Set struct {
	Disks []Disk
	// Dir is the folder with the images, "" where there are none, and HostFS type
	// and mount options of the file system it lies on.
	Dir, HostFS string

	s  *Store
	c  *scope
	fs *hostFS // of our making, nil for others
}

// Close ends the servers and removes the disks. It goes on after errors, which
// include servers that had ended by themselves, and although ctx has ended. It can
// be called again.
func (t *Set) Close(ctx context.Context) error {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	err := t.c.close(ctx)
	if t.fs != nil {
		t.s.trim(ctx, t.fs)
	}
	if len(t.c.made) == 0 {
		delete(t.s.sets, t)
	}
	return err
}

// Prepare makes the disks of a cell. Whatever Missing would have found is an error
// here, or what follows from it. After an error nothing is left.
func (s *Store) Prepare(ctx context.Context, setup spec.Setup, client string, nodes int) (*Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("prepare disks: the store is closed")
	}
	b := &builder{s: s, c: s.newScope(), setup: setup, client: client, nodes: nodes}
	set, err := b.build(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare disks (backing=%s): %w", setup.Backing, oneLine(err)), b.c.close(ctx))
	}
	s.sets[set] = true
	return set, nil
}

// oneLine says plainly that a disk is full, whichever program met that.
func oneLine(err error) error {
	if errors.Is(err, unix.ENOSPC) && !strings.Contains(err.Error(), unix.ENOSPC.Error()) {
		return fmt.Errorf("%w: %w", unix.ENOSPC, err)
	}
	return err
}

// builder makes one set.
type builder struct {
	s      *Store
	c      *scope
	setup  spec.Setup
	client string
	nodes  int

	fs  *hostFS
	dir string // of the images
	own string // of sockets, in Dir itself
}

// image is a node's disk before a server is put over it.
type image struct {
	path    string // of the file or block device
	block   bool
	format  string // raw, qcow2, luks
	backing string // of a qcow2 overlay
	keyFile string
	device  string // the host's block device below
	limit   int64  // bytes of it that are used, 0: all
	// source and url stand for all of the above where it is not a path.
	source spec.Source
	url    string
}

// Backings whose images lie as files on a host file system.
var fileBackings = []string{"copy", "sparse", "falloc", "full", "reflink", "overlay", "loop"}

// kindOf splits a backing from its argument.
func kindOf(backing string) (kind, arg string) {
	kind, arg, _ = strings.Cut(backing, ":")
	return kind, arg
}

func nodeName(i int) string { return string(rune('a' + i)) }

func (b *builder) build(ctx context.Context) (*Set, error) {
	if b.nodes < 1 || b.nodes > 26 {
		return nil, fmt.Errorf("%d nodes: 1 to 26 are possible", b.nodes)
	}
	set := &Set{s: b.s, c: b.c}
	if err := b.folders(ctx); err != nil {
		return nil, err
	}
	if b.dir != "" {
		set.Dir, set.HostFS = b.dir, b.hostFSText()
		if b.fs.loop != "" {
			set.fs = b.fs
		}
	}
	images, err := b.images(ctx)
	if err == nil && b.setup.Pass == "second" {
		err = b.writeAll(ctx, images)
	}
	if err == nil {
		err = b.scheduler(images)
	}
	if err == nil && b.client == spec.ClientGuest && b.setup.Device == "vhost-scsi" {
		for i := range images {
			if err = b.vhostSCSI(i, &images[i]); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	for i, m := range images {
		d, err := b.serve(ctx, i, m)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", nodeName(i), err)
		}
		set.Disks = append(set.Disks, d)
	}
	return set, nil
}

// folders makes those of the set.
func (b *builder) folders(ctx context.Context) (err error) {
	b.s.nextID++
	name := fmt.Sprintf("set%d", b.s.nextID)
	b.own = filepath.Join(b.s.o.Dir, name)
	if err := b.c.folder(b.own); err != nil {
		return err
	}
	kind, _ := kindOf(b.setup.Backing)
	if !slices.Contains(fileBackings, kind) {
		return nil
	}
	if b.fs, err = b.s.hostFSFor(ctx, b.setup.HostFS); err != nil {
		return err
	}
	b.dir = filepath.Join(b.fs.dir, name)
	if b.dir == b.own {
		return nil
	}
	return b.c.folder(b.dir)
}

func (b *builder) hostFSText() string {
	at := b.dir
	for at != "/" {
		if text, ok := mountOptions(at); ok {
			return text
		}
		at = filepath.Dir(at)
	}
	text, _ := mountOptions("/")
	return text
}

// images makes them, without servers.
func (b *builder) images(ctx context.Context) ([]image, error) {
	kind, arg := kindOf(b.setup.Backing)
	switch kind {
	case "copy", "sparse", "falloc", "full":
		return b.each(func(i int) (image, error) { return b.file(ctx, b.dir, i) })
	case "reflink":
		return b.each(func(i int) (image, error) { return b.reflink(ctx, i) })
	case "overlay":
		return b.each(func(i int) (image, error) { return b.overlay(ctx, i) })
	case "tmpfs":
		return b.tmpfs(ctx)
	case "loop":
		return b.each(func(i int) (image, error) { return b.loopDevice(ctx, i) })
	case "lvm", "lvm-snapshot", "lvm-thin":
		return b.lvm(ctx, kind)
	case "zvol", "zvol-clone":
		return b.zvol(ctx, kind)
	case "device":
		list := strings.Split(arg, ";")
		if len(list) < b.nodes {
			return nil, fmt.Errorf("%d devices for %d nodes: name one for each, separated by ;", len(list), b.nodes)
		}
		return b.each(func(i int) (image, error) { return b.device(ctx, list[i]) })
	case "url":
		list := urlsFor(arg, b.nodes)
		return b.each(func(i int) (image, error) { return image{url: list[i], format: "raw"}, nil })
	}
	return nil, fmt.Errorf("unknown backing %q", b.setup.Backing)
}

// each makes the images of all nodes.
func (b *builder) each(build func(i int) (image, error)) ([]image, error) {
	images := make([]image, b.nodes)
	for i := range images {
		var err error
		if images[i], err = build(i); err != nil {
			return nil, fmt.Errorf("node %s: %w", nodeName(i), err)
		}
	}
	return images, nil
}

// urlsFor gives each node a URL of a list separated by ;. A single one is for all.
func urlsFor(arg string, nodes int) []string {
	list := strings.Split(arg, ";")
	if len(list) == 1 {
		return slices.Repeat(list, nodes)
	}
	for len(list) < nodes {
		list = append(list, "")
	}
	return list
}

// deviceBelow is the block device that a file lies on, "" where there is none.
func (b *builder) deviceBelow(path string) string {
	if b.fs != nil && b.fs.loop != "" {
		return b.fs.loop
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return "" // a RAM disk, the network
	}
	return filepath.Base(link)
}

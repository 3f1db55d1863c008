package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// here is the host file system that Dir lies on.
const here = "here"

// hostFS is a file system of the host that nodes' files lie on.
type hostFS struct {
	dir  string
	loop string // the loop device below, "" for here
}

// mkfs are the options of each: nothing is left to be written later, during a
// measurement.
var mkfs = map[string]command{
	"ext4":  {name: "mke2fs", args: []string{"-q", "-F", "-t", "ext4", "-m", "0", "-i", "65536", "-E", "lazy_itable_init=0,lazy_journal_init=0"}},
	"xfs":   {name: "mkfs.xfs", args: []string{"-q", "-f"}},
	"btrfs": {name: "mkfs.btrfs", args: []string{"-q", "-f"}},
}

// maxHostFS bounds a host file system: ext4's tables grow with the size.
const maxHostFS = 4 << 40

// hostFSFor returns a host file system, and makes it at its first use: a sparse
// file as large as there is space, behind a loop device. The caller holds s.mu.
func (s *Store) hostFSFor(ctx context.Context, name string) (*hostFS, error) {
	if name == here {
		return &hostFS{dir: s.o.Dir}, nil
	}
	if h := s.hostFS[name]; h != nil {
		return h, nil
	}
	c := s.newScope()
	h, err := s.makeHostFS(ctx, c, name)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host file system %s: %w", name, err), c.close(ctx))
	}
	s.shared.adopt(c)
	s.hostFS[name] = h
	return h, nil
}

// adopt takes over what another scope has made.
func (c *scope) adopt(from *scope) {
	c.made = append(c.made, from.made...)
	for id, p := range from.running {
		c.running[id] = p
	}
	from.made = nil
	clear(from.running)
}

func (s *Store) makeHostFS(ctx context.Context, c *scope, name string) (*hostFS, error) {
	free, err := freeSpace(s.o.Dir)
	if err != nil {
		return nil, err
	}
	image := filepath.Join(s.o.Dir, name+".img")
	if err := c.sparseFile(image, min(max(free, 1<<30), maxHostFS)/unit*unit); err != nil {
		return nil, err
	}
	if err := s.format(ctx, name, image); err != nil {
		return nil, err
	}
	dev, err := c.loop(image)
	if err != nil {
		return nil, err
	}
	h := &hostFS{dir: filepath.Join(s.o.Dir, name), loop: dev}
	if err := c.folder(h.dir); err != nil {
		return nil, err
	}
	if err := c.mount("/dev/"+dev, h.dir, name, ""); err != nil {
		return nil, err
	}
	text, _ := mountOptions(h.dir)
	s.logf("host file system /dev/%s on %s: %s", dev, h.dir, text)
	return h, nil
}

// trim gives back to Dir what files took that are gone: the file below a host file
// system would only grow, and leave less to other backings from cell to cell.
func (s *Store) trim(ctx context.Context, h *hostFS) {
	err := syncFS(h.dir) // what is freed in a log that was not written yet can't be trimmed
	if err == nil {
		_, err = s.run(context.WithoutCancel(ctx), command{name: "fstrim", args: []string{h.dir}})
	}
	if err != nil {
		s.logf("the space of removed disks stays taken: %v", err)
	}
}

func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// format makes a file system in a file. In a file, and not on a device over it,
// what reads as zeros anyway is not written.
func (s *Store) format(ctx context.Context, name, file string, more ...string) error {
	c := mkfs[name]
	c.args = append(append(append([]string{}, c.args...), more...), file)
	_, err := s.run(ctx, c)
	return err
}

// sparseFile makes a file that takes no space yet.
func (c *scope) sparseFile(path string, size int64) error {
	if err := c.record(entry{Kind: kindPath, Path: path}); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func (c *scope) mount(device, at, fileSystem, options string) error {
	if err := c.record(entry{Kind: kindMount, Path: at}); err != nil {
		return err
	}
	if err := unix.Mount(device, at, fileSystem, 0, options); err != nil {
		return fmt.Errorf("mount %s as %s on %s: %w", device, fileSystem, at, err)
	}
	return nil
}

// mounted is a line of the table of mounts.
type mounted struct{ source, at, kind, options string }

// mounts reads the table.
func mounts() ([]mounted, error) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var all []mounted
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) >= 4 {
			all = append(all, mounted{octal.Replace(f[0]), octal.Replace(f[1]), f[2], f[3]})
		}
	}
	return all, nil
}

// octal is how the table escapes what would split a line.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountsIn lists what is mounted at or below a path.
func mountsIn(path string) ([]mounted, error) {
	all, err := mounts()
	return slices.DeleteFunc(all, func(m mounted) bool { return !below(path, m.at) }), err
}

// mountOptions are the type and options of what is mounted at a path, if something is.
func mountOptions(at string) (string, bool) {
	found, err := mountsIn(at)
	for _, m := range slices.Backward(found) { // the last one covers the others
		if err == nil && m.at == at {
			return m.kind + " " + m.options, true
		}
	}
	return "", false
}

// freeSpace is what a file system still takes, in bytes. Of a path that does not
// exist yet its nearest parent counts.
func freeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			return int64(st.Bavail) * st.Bsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return 0, fmt.Errorf("free space of %s: %w", path, err)
		}
		path = filepath.Dir(path)
	}
}

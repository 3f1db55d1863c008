package diskurl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// maxChain is how many images may lie over each other.
const maxChain = 64

// References is what an image may name: files beneath these directories. The zero
// value allows nothing.
type References struct {
	dirs []string
}

// Allow adds a directory, beneath which files may be opened.
func (r *References) Allow(dir string) error {
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no directory", dir)
	}
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	r.dirs = append(r.dirs, dir)
	return nil
}

// chain is an image, from the one that was opened down.
type chain struct {
	refs  *References
	opts  file.Options
	dir   string   // what relative names are relative to; "" where there is nothing
	above []string // identities of the images above and of this one
}

// policy is what an image at u, whose bytes are child's, may name: nil if that is nothing.
func (u URL) policy(child *disk.Disk, o *Options) (Policy, error) {
	if len(o.References.dirs) == 0 {
		return nil, nil //nolint:nilnil // nil is the policy that denies all
	}
	c := chain{refs: &o.References, opts: fileOptions(o), above: []string{child.Info().ID}}
	if !u.Local() {
		return c.open, nil
	}
	path, err := filepath.Abs(u.Path())
	if err == nil {
		c.dir, err = filepath.EvalSymlinks(filepath.Dir(path))
	}
	return c.open, err
}

// open is a Policy: a regular file beneath an allowed directory, of the format
// that the image names, read-only.
func (c chain) open(ctx context.Context, r Reference) (*disk.Disk, error) {
	name, format := r.Name, r.Format
	switch {
	case len(c.above) >= maxChain:
		return nil, fmt.Errorf("the chain has more than %d images", maxChain)
	case format == "":
		return nil, errors.New("the image does not say of which format it is, and a format is never guessed: `qemu-img rebase -u -F FORMAT` writes it down")
	case formats[format] == nil:
		return nil, fmt.Errorf("format %q is %w", format, ErrNotBuilt)
	case strings.ContainsRune(name, 0):
		return nil, errors.New("the name contains a NUL byte")
	}
	if before, _, ok := strings.Cut(name, ":"); ok && !strings.Contains(before, "/") {
		return nil, errors.New("it is no file but has a protocol; only files are opened")
	}
	path := name
	switch {
	case filepath.IsAbs(path):
	case c.dir == "":
		return nil, errors.New("the image is no local file, so that a name that does not begin with / is relative to nothing")
	default:
		path = filepath.Join(c.dir, name)
	}
	f, err := c.refs.beneath(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return c.openFile(ctx, f, path, format)
}

// beneath opens path beneath one of the directories, and only there: no symbolic link
// and no .. leads out, whatever changes meanwhile.
func (r *References) beneath(path string) (*os.File, error) {
	for _, dir := range r.dirs {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		return openBeneath(dir, rel)
	}
	return nil, fmt.Errorf("it is not beneath %s, which --backing allows", strings.Join(r.dirs, " or "))
}

func openBeneath(dir, rel string) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, rel, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open beneath " + dir, Path: rel, Err: err}
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir, rel)), nil
}

// openFile opens the file that f is, by its descriptor: its name may be another's by now.
func (c chain) openFile(ctx context.Context, f *os.File, path, format string) (*disk.Disk, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	fo := c.opts
	fo.ReadOnly = true
	opened, err := file.Open(ctx, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), fo)
	if err != nil {
		return nil, err
	}
	child := disk.New(opened, path)
	id := child.Info().ID
	if slices.Contains(c.above, id) {
		return nil, errors.Join(errors.New("the chain has a loop: this file is in it already"), child.Close())
	}
	next := chain{refs: c.refs, opts: fo, dir: filepath.Dir(path), above: append(slices.Clip(c.above), id)}
	d, err := formats[format].open(ctx, child, FormatOptions{ReadOnly: true, References: next.open})
	if err != nil {
		return nil, errors.Join(err, child.Close())
	}
	return d, nil
}

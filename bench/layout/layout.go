// Package layout prepares the local files of a job file: it makes and fills them
// as fio lays them out, drops their cached pages, refuses devices that are in use,
// and finds the block devices below them. It knows paths alone, no disks.
package layout

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Preparer lays out the files of a run.
type Preparer struct {
	// Force lets jobs write to devices that are mounted or otherwise in use.
	Force bool
	made  map[string]bool
}

// Prepare makes sure that the file of a job exists and has size bytes (0: as many
// as it has), and that a job which writes to a device may do so.
func (p *Preparer) Prepare(ctx context.Context, j *jobfile.Job, name string, size int64) error {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%s is a directory; directory= takes one, filename= does not", name)
	case st.Mode()&os.ModeDevice != 0:
		return p.CheckUse(j, name)
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a block device", name)
	}
	var have int64
	if err == nil {
		have = st.Size()
	}
	if have >= size && err == nil && (have > 0 || size > 0) {
		return nil
	}
	if size == 0 {
		return fmt.Errorf("%s does not exist or is empty, and the job has no size=", name)
	}
	if !j.AllowCreate {
		return fmt.Errorf("%s does not have %d bytes, and allow_file_create=0 keeps it from being made", name, size)
	}
	return p.make(ctx, j, name, have, size)
}

// CheckUse refuses a device that is in use if the job writes to it.
func (p *Preparer) CheckUse(j *jobfile.Job, name string) error {
	writes := (j.Mode.Write || j.Mode.Trim) && !j.VerifyOnly
	if !writes || p.Force || j.AllowMounted {
		return nil
	}
	return p.inUse(name)
}

// make extends the file. What a job reads must have been written, or it would
// measure holes; what it only writes is allocated unless overwrite=1.
func (p *Preparer) make(ctx context.Context, j *jobfile.Job, name string, have, size int64) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil { // fio's mode
		return fmt.Errorf("lay out %s: %w", name, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if p.made == nil {
		p.made = map[string]bool{}
	}
	if have == 0 {
		p.made[name] = true
	}
	if !j.Mode.Read && !j.Overwrite {
		return allocate(f, j.Fallocate, size)
	}
	if err := fill(ctx, f, have, size); err != nil {
		return fmt.Errorf("lay out %s: %w", name, err)
	}
	return f.Sync()
}

func allocate(f *os.File, how string, size int64) error {
	switch how {
	case "none", "0", "truncate":
	case "keep":
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("allocate %s: %w", f.Name(), err)
		}
	default:
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("allocate %s: %w", f.Name(), err)
		}
	}
	return f.Truncate(size)
}

func fill(ctx context.Context, f *os.File, from, to int64) error {
	buf := make([]byte, 1<<20)
	g := gen.NewFiller(&jobfile.Job{Scramble: true}, 1)
	g.Init(buf)
	for off := from; off < to; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf)), to-off)
		g.Next(buf[:n], off, off)
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

// Remove deletes a file that this Preparer made.
func (p *Preparer) Remove(name string) error {
	if !p.made[name] {
		return nil
	}
	delete(p.made, name)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// inUse refuses a block device that is mounted, swapped to, or held by another
// device, whole or in part.
func (p *Preparer) inUse(name string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil
	}
	dev := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	sys, _ := filepath.EvalSymlinks("/sys/dev/block/" + dev)
	if sys == "" {
		return nil // a device without an entry in sysfs has no holders
	}
	parts := []string{sys}
	if sub, err := filepath.Glob(filepath.Join(sys, "*", "partition")); err == nil {
		for _, s := range sub {
			parts = append(parts, filepath.Dir(s))
		}
	}
	for _, part := range parts {
		if why := holder(part); why != "" {
			return fmt.Errorf("%s is in use (%s) and the job writes to it; end that use, or say --force", name, why)
		}
	}
	return nil
}

// holder says who uses the block device of a sysfs folder, or "".
func holder(sys string) string {
	name := filepath.Base(sys)
	if held, _ := os.ReadDir(filepath.Join(sys, "holders")); len(held) > 0 {
		return name + " is part of " + held[0].Name()
	}
	dev, err := os.ReadFile(filepath.Join(sys, "dev"))
	if err != nil {
		return ""
	}
	if dir := mountedAt(strings.TrimSpace(string(dev)), "/dev/"+name); dir != "" {
		return name + " is mounted at " + dir
	}
	if swap, err := os.ReadFile("/proc/swaps"); err == nil && strings.Contains(string(swap), "/dev/"+name+" ") {
		return name + " is swap space"
	}
	return ""
}

// mountedAt finds a device among the mounts, by number or, for file systems with
// numbers of their own (btrfs), by name.
func mountedAt(dev, path string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(io.LimitReader(f, 16<<20)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 6 {
			continue
		}
		for i, v := range fields[6:] {
			if v == "-" && i+2 < len(fields[6:]) && (fields[6:][i+2] == path) {
				return fields[4]
			}
		}
		if fields[2] == dev {
			return fields[4]
		}
	}
	return ""
}

// Devices returns the kernel's names of the block device a path is, or lies on.
func Devices(name string) []string {
	var st unix.Stat_t
	for path := name; unix.Stat(path, &st) != nil; path = filepath.Dir(path) {
		if path == "/" || path == "." {
			return nil
		}
	}
	dev := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		dev = st.Rdev
	}
	sys, err := filepath.EvalSymlinks("/sys/dev/block/" + strconv.Itoa(int(unix.Major(dev))) + ":" + strconv.Itoa(int(unix.Minor(dev))))
	if err != nil {
		return nil
	}
	if slaves, _ := os.ReadDir(filepath.Join(sys, "slaves")); len(slaves) > 0 {
		out := []string{filepath.Base(sys)}
		for _, s := range slaves {
			out = append(out, s.Name())
		}
		return out
	}
	return []string{filepath.Base(sys)}
}

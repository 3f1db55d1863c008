package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// dataFile is the golden disk's data where it has a file system.
const dataFile = "golden.data"

// goldenOn returns the golden disk on a host file system, made at its first use.
// The caller holds s.mu.
func (s *Store) goldenOn(ctx context.Context, name string) (string, error) {
	h, err := s.hostFSFor(ctx, name)
	if err != nil {
		return "", err
	}
	path := goldenIn(h.dir)
	return s.once(ctx, path, func(c *scope) error {
		s.logf("golden disk %s: %s, %s of data, file system: %s", path, sizeText(s.o.Size), sizeText(s.o.Data), s.o.FileSystem)
		return s.makeGolden(ctx, c, path)
	})
}

func goldenIn(dir string) string { return filepath.Join(dir, "golden.raw") }

// once makes a file that all nodes share, and only if it is not there yet.
func (s *Store) once(ctx context.Context, path string, build func(c *scope) error) (string, error) {
	if s.golden[path] {
		return path, nil
	}
	c := s.newScope()
	if err := build(c); err != nil {
		return "", errors.Join(fmt.Errorf("golden disk: %w", err), c.close(ctx))
	}
	s.shared.adopt(c)
	s.golden[path] = true
	return path, dropCache(path)
}

// dropCache empties the page cache of a file, so that the first cell that reads it
// has no advantage over none.
func dropCache(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if err == nil {
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return errors.Join(err, f.Close())
}

func (s *Store) makeGolden(ctx context.Context, c *scope, path string) error {
	if err := c.sparseFile(path, s.o.Size); err != nil {
		return err
	}
	switch s.o.FileSystem {
	case "ext4":
		return s.goldenExt4(ctx, path)
	case "xfs":
		return s.goldenXFS(ctx, path)
	}
	return s.writeData(ctx, path)
}

// goldenExt4 has mke2fs put the data in, which needs no root and no mount.
func (s *Store) goldenExt4(ctx context.Context, path string) (err error) {
	if s.o.Data == 0 {
		return s.format(ctx, "ext4", path)
	}
	work := s.newScope()
	defer func() { err = errors.Join(err, work.close(ctx)) }()
	dir := path + ".d"
	if err := work.folder(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // it becomes the root folder
		return err
	}
	if err := s.writeData(ctx, filepath.Join(dir, dataFile)); err != nil {
		return err
	}
	return s.format(ctx, "ext4", path, "-d", dir)
}

func (s *Store) goldenXFS(ctx context.Context, path string) (err error) {
	if err := s.format(ctx, "xfs", path); err != nil || s.o.Data == 0 {
		return err
	}
	work := s.newScope()
	defer func() { err = errors.Join(err, work.close(ctx)) }()
	dev, err := work.loop(path)
	if err != nil {
		return err
	}
	at := path + ".d"
	if err := work.folder(at); err != nil {
		return err
	}
	if err := work.mount("/dev/"+dev, at, "xfs", ""); err != nil {
		return err
	}
	return s.writeData(ctx, filepath.Join(at, dataFile))
}

// writeData writes the golden data, the same each time, to the start of a file.
func (s *Store) writeData(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = io.Copy(w, io.LimitReader(&stopReader{ctx, rand.NewChaCha8(goldenSeed)}, s.o.Data))
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync() // or it would be written back during the first measurement
	}
	return errors.Join(err, f.Close())
}

var goldenSeed = [32]byte([]byte("vmdisk lab: the golden disk, v.1"))

// stopReader ends with its context.
type stopReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *stopReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// fill says what of a copy's target is to be written.
type fill int

const (
	fillData  fill = iota // the target reads as zeros: its holes stay as they are
	fillHoles             // the target may hold anything: holes are zeroed
	fillAll               // holes are written as zeros
)

// copyGolden makes a disk equal to the golden one. Blocks are never shared: that
// is what the reflink backing is for.
func copyGolden(ctx context.Context, golden, target, cache string, f fill) error {
	o := diskcopy.Options{NoClone: true, SparseSize: -1, TargetIsZero: f == fillData}
	if f == fillAll {
		o.Strategy = diskcopy.Write
	}
	return withDisks(ctx, golden, target, cache, func(dst, src *disk.Disk) error {
		_, err := diskcopy.Copy(ctx, dst, src, o)
		return err
	})
}

// withDisks opens the golden disk and a target. Target URLs bypass the page cache,
// where they can, as what is cached before a measurement should not depend on the
// backing.
func withDisks(ctx context.Context, golden, target, cache string, use func(dst, src *disk.Disk) error) (err error) {
	src, err := diskurl.Open(ctx, rawURL(golden), diskurl.Options{ReadOnly: true, FileOptions: diskurl.FileOptions{ForceShare: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := openFree(ctx, target, diskurl.Options{FileOptions: diskurl.FileOptions{Cache: cache}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return use(dst, src)
}

func rawURL(path string) string { return diskurl.File(path).As(diskurl.FormatRaw).String() }

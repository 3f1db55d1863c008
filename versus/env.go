package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// Env is where a case runs.
type Env struct {
	Dir     string // of the case, removed after it
	Bin     string // the vmdisk under test
	Short   bool
	Runtime time.Duration // of one fio run

	undo []func() error
}

// Defer registers what is to be undone after the case, last first.
func (e *Env) Defer(f func() error) { e.undo = append(e.undo, f) }

// Close undoes everything.
func (e *Env) Close() error {
	var all error
	for i := len(e.undo) - 1; i >= 0; i-- {
		all = errors.Join(all, e.undo[i]())
	}
	e.undo = nil
	return errors.Join(all, os.RemoveAll(e.Dir))
}

// Path of a file of the case.
func (e *Env) Path(name string) string { return filepath.Join(e.Dir, name) }

// Our, Nbdkit and Qemu start servers that end with the case.
func (e *Env) Our(args ...string) (*peer.Server, error) {
	return e.keep(peer.Vmdisk(e.Bin, e.Dir, args...))
}

// Nbdkit starts nbdkit.
func (e *Env) Nbdkit(args ...string) (*peer.Server, error) {
	return e.keep(peer.Nbdkit(e.Dir, args...))
}

// Qemu starts qemu-nbd.
func (e *Env) Qemu(args ...string) (*peer.Server, error) {
	return e.keep(peer.QemuNBD(e.Dir, args...))
}

func (e *Env) keep(s *peer.Server, err error) (*peer.Server, error) {
	if err == nil {
		e.Defer(func() error { s.Kill(); return nil })
	}
	return s, err
}

// Shared returns the path of a file that many cases use; the first one makes it.
func (e *Env) Shared(name string, create func(path string) error) (string, error) {
	path := filepath.Join(filepath.Dir(e.Dir), name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := create(path + ".new"); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

// sparse makes a new file of size bytes without data.
func sparse(path string, size int64) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// filled makes a file of size bytes, all data, in the page cache and on disk.
func filled(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	for off := int64(0); off < size && err == nil; off += int64(len(block)) {
		_, err = f.WriteAt(block[:min(int64(len(block)), size-off)], off)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// settle writes back everything, so that no run pays for the one before.
func settle() { unix.Sync() }

// durable makes a copied file durable: the same last step for every contender.
func durable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// warm reads a file so that it is in the page cache.
func warm(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for off := int64(0); off < st.Size(); {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if err != nil {
			return nil // only a hole is left
		}
		end, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("warm %s: %w", path, err)
		}
		for off = data; off < end; off += int64(len(buf)) {
			if _, err := f.ReadAt(buf[:min(int64(len(buf)), end-off)], off); err != nil {
				return fmt.Errorf("warm %s: %w", path, err)
			}
		}
		off = end
	}
	return nil
}

// timed measures a program and, if there is one, the server it talks to. after
// is part of the measured time.
func timed(ctx context.Context, server []*peer.Server, after func() error, argv ...string) (Sample, error) {
	before, err := serverCPU(server)
	if err != nil {
		return Sample{}, err
	}
	start := time.Now()
	r, err := peer.Run(ctx, argv...)
	if err != nil {
		return Sample{}, err
	}
	if after != nil {
		if err := after(); err != nil {
			return Sample{}, err
		}
	}
	wall := time.Since(start)
	used, err := serverCPU(server)
	return Sample{Value: wall.Seconds(), ClientCPU: r.CPU(), ServerCPU: used - before}, err
}

func serverCPU(servers []*peer.Server) (time.Duration, error) {
	var sum time.Duration
	for _, s := range servers {
		d, err := s.CPU()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

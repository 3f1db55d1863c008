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

// loop makes a block device over a file, with direct I/O where the file system
// below has it: otherwise every block would be cached twice. It returns the name
// of the device, such as loop3.
func (c *scope) loop(file string) (string, error) {
	if err := c.record(entry{Kind: kindLoop, Path: file}); err != nil {
		return "", err
	}
	name, err := attach(file)
	if err != nil {
		return "", fmt.Errorf("loop device over %s: %w", file, err)
	}
	direct, err := os.ReadFile(filepath.Join("/sys/block", name, "loop/dio"))
	if err == nil && strings.TrimSpace(string(direct)) != "1" {
		c.s.logf("/dev/%s: no direct I/O on the file system of %s, it is cached twice", name, file)
	}
	return name, nil
}

func attach(file string) (string, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return "", fmt.Errorf("find a free one: %w", err)
		}
		name := fmt.Sprintf("loop%d", n)
		err = configure(name, backing)
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return "", err
		}
	}
}

func configure(name string, backing *os.File) error {
	dev, err := os.OpenFile("/dev/"+name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], backing.Name())
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		return fmt.Errorf("set up /dev/%s: %w", name, err)
	}
	return nil
}

// loopsOf finds the loop devices over a file, by its path.
func loopsOf(file string) ([]string, error) {
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, attr := range all {
		text, err := os.ReadFile(attr)
		if err != nil {
			continue // it has just gone
		}
		path := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
		if path == file {
			names = append(names, filepath.Base(filepath.Dir(filepath.Dir(attr))))
		}
	}
	return names, nil
}

// detach is done at once, or when the last user closes the device.
func detach(name string) error {
	dev, err := os.Open("/dev/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach /dev/%s: %w", name, err)
	}
	return nil
}

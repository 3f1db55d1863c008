package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// busyTime is how long a mount or device may still be busy: programs of the host
// that look at every new device open it for a moment.
const busyTime = 20 * time.Second

// undo undoes one entry. It checks that what it finds is ours: names and numbers
// may have been given to others since.
func (s *Store) undo(ctx context.Context, e entry) error {
	switch e.Kind {
	case kindPath:
		return s.undoPath(e.Path)
	case kindLoop:
		return s.undoLoop(ctx, e.Path)
	case kindMount:
		return s.undoMount(ctx, e.Path)
	case kindProcess:
		return undoProcess(ctx, e.PID, e.Started)
	case kindVG:
		return s.undoVG(ctx, e)
	case kindPool:
		return s.undoPool(ctx, e)
	case kindScheduler:
		return undoScheduler(e)
	case kindDevice:
		return s.undoDevice(ctx, e)
	case kindTarget:
		return undoTarget(e)
	}
	return fmt.Errorf("unknown kind %q, of another version of this program?", e.Kind)
}

// ours refuses paths outside of our folder, whatever the ledger says.
func (s *Store) ours(path string) error {
	if !below(s.o.Dir, path) || path == s.o.Dir {
		return fmt.Errorf("%s does not lie in %s: it is not ours", path, s.o.Dir)
	}
	return nil
}

func (s *Store) undoPath(path string) error {
	if err := s.ours(path); err != nil {
		return err
	}
	mounts, err := mountsIn(path)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is mounted in it: not removed", mounts[0].at)
	}
	// Through the folder: a link that was put into it must not lead out of it.
	root, err := os.OpenRoot(s.o.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	rel, err := filepath.Rel(s.o.Dir, path)
	if err != nil {
		return err
	}
	empty(root, rel)
	return root.RemoveAll(rel)
}

// empty truncates all files, as a head start: XFS frees the blocks of a removed file
// some time later, those of a truncated one at once, so that they can be trimmed.
func empty(root *os.Root, path string) {
	_ = fs.WalkDir(root.FS(), path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if f, err := root.OpenFile(p, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
				_ = f.Close()
			}
		}
		return nil
	})
}

func (s *Store) undoLoop(ctx context.Context, file string) error {
	if err := s.ours(file); err != nil {
		return err
	}
	return retry(ctx, func() error {
		names, err := loopsOf(file)
		if err != nil {
			return err
		}
		for _, name := range names {
			err = errors.Join(err, detach(name))
		}
		if left, listErr := loopsOf(file); listErr == nil && len(left) > 0 {
			err = errors.Join(err, fmt.Errorf("/dev/%s: %w", left[0], unix.EBUSY))
		}
		return err
	})
}

func (s *Store) undoMount(ctx context.Context, at string) error {
	if err := s.ours(at); err != nil {
		return err
	}
	parent, err := s.beneath(filepath.Dir(at))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	name := fmt.Sprintf("/proc/self/fd/%d/%s", parent, filepath.Base(at))
	return retry(ctx, func() error {
		err := unix.Unmount(name, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) {
			return nil // not mounted
		}
		return err
	})
}

// beneath opens a folder in ours, by no link that was put into it.
func (s *Store) beneath(path string) (fd int, err error) {
	rel, err := filepath.Rel(s.o.Dir, path)
	if err != nil {
		return -1, err
	}
	root, err := unix.Open(s.o.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", s.o.Dir, err)
	}
	defer func() { _ = unix.Close(root) }()
	fd, err = unix.Openat2(root, rel, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return -1, fmt.Errorf("%s: there is a link in it: it is not ours", path)
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	return fd, nil
}

// undoProcess kills a process if it still is the one that was recorded.
func undoProcess(ctx context.Context, pid int, started uint64) error {
	same := func() bool {
		ticks, err := startTicks(pid)
		return err == nil && ticks == started && !zombie(pid)
	}
	if !same() {
		return nil
	}
	if err := killGroup(pid); err != nil {
		return err
	}
	return retry(ctx, func() error {
		if same() {
			return unix.EBUSY
		}
		return nil
	})
}

// zombie: ended, and only not yet waited for by its parent.
func zombie(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(text), ") ")
	return err == nil && ok && (rest[0] == 'Z' || rest[0] == 'X')
}

// retry calls f until it no longer says busy.
func retry(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, busyTime)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := f()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

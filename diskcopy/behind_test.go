package diskcopy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/behind"
)

// writtenBehind is a target that is told to write out what it holds. It checks the
// order: pieces follow each other, hold nothing that is not written yet, and are
// begun before they are waited for.
type writtenBehind struct {
	remote
	mu             sync.Mutex
	written        map[int64]int64 // offset to length of what was written
	begun, dropped int64
	calls          int
	flushes        int
	wrong          error
	unsupported    bool
	err, flushErr  error
}

func newWrittenBehind(t *testing.T, size int64) *writtenBehind {
	return &writtenBehind{remote: remote{child: memDisk(t, size)}, written: map[int64]int64{}}
}

func (w *writtenBehind) Info() disk.Info {
	in := w.remote.Info()
	in.Volatile = true
	return in
}

func (w *writtenBehind) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	err := w.remote.WriteAt(ctx, p, off, f)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written[off] = int64(len(p))
	return err
}

func (w *writtenBehind) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushes++
	if w.calls > 0 && w.flushErr != nil {
		return w.flushErr
	}
	return w.remote.Flush(ctx)
}

func (w *writtenBehind) WriteBehind(off, n int64, drop bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.unsupported:
		return errors.ErrUnsupported
	case n == 0 && !drop:
		return nil // a question
	}
	w.calls++
	if drop {
		if n <= 0 || off != w.dropped || off+n > w.begun {
			w.wrong = fmt.Errorf("dropped [%d,+%d), want from %d to %d at most", off, n, w.dropped, w.begun)
		}
		w.dropped = off + n
		return w.err
	}
	if off != w.begun {
		w.wrong = fmt.Errorf("begun at %d, want %d", off, w.begun)
	}
	for pos := off; pos < off+n; pos += w.written[pos] {
		if w.written[pos] == 0 {
			w.wrong = fmt.Errorf("begun [%d,+%d), but %d is not written", off, n, pos)
			break
		}
	}
	w.begun = off + n
	return w.err
}

// TestWriteBehind: a target is told in order, all but the end is dropped, and it is not
// flushed until the end.
func TestWriteBehind(t *testing.T) {
	t.Parallel()
	const size = 32 * behind.Step
	for depth, kept := range map[int]int64{1: boundSteps * behind.Step, 16: size} { // one of many workers may hold the frontier up
		src, target := data(t, size), newWrittenBehind(t, size)
		if _, err := Copy(t.Context(), disk.New(target, "behind"), src, Options{QueueDepth: depth}); err != nil {
			t.Fatal(err)
		}
		if target.wrong != nil {
			t.Error(target.wrong)
		}
		if size-target.dropped > kept {
			t.Errorf("dropped %d of %d", target.dropped, size)
		}
		if target.flushes != 1 {
			t.Errorf("%d flushes", target.flushes)
		}
		mustEqual(t, src, target.child)
	}
}

// boundSteps is how many steps the page cache holds at most with one worker: those under
// way and the one begun last, those it is ahead, and the one it is at.
const boundSteps = behind.Keep/behind.Step + behindAhead + 3

// TestNoWriteBehind: not where no flush follows, nor for little data; a target that
// has nothing to write out is flushed meanwhile as others are.
func TestNoWriteBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size        int64
		unsupported bool
		o           Options
		flushes     int
	}{
		"no flush":    {size: 3 * behind.Step, o: Options{NoFlush: true}},
		"little data": {size: behind.Step / 2, flushes: 1},
		"unsupported": {size: 3 * flushStep, unsupported: true, flushes: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, target := data(t, c.size), newWrittenBehind(t, c.size)
			target.unsupported = c.unsupported
			if _, err := Copy(t.Context(), disk.New(target, "behind"), src, c.o); err != nil {
				t.Fatal(err)
			}
			if target.calls > 0 || target.flushes < c.flushes || target.flushes > 0 && c.flushes == 0 {
				t.Errorf("%d calls, %d flushes", target.calls, target.flushes)
			}
		})
	}
}

// TestWriteBehindFails: an error there is none of the copy's own, the flush's is.
func TestWriteBehindFails(t *testing.T) {
	t.Parallel()
	for _, flushErr := range []error{nil, syscall.ENOSPC} {
		src, target := data(t, 5*behind.Step), newWrittenBehind(t, 5*behind.Step)
		target.err, target.flushErr = syscall.EIO, flushErr
		_, err := Copy(t.Context(), disk.New(target, "behind"), src, Options{})
		var ce *CopyError
		if !errors.Is(err, flushErr) || flushErr != nil && (!errors.As(err, &ce) || ce.Side != Target) {
			t.Errorf("flush %v: got %v", flushErr, err)
		}
		if target.calls != 1 {
			t.Errorf("flush %v: %d calls after the error", flushErr, target.calls-1)
		}
	}
}

// TestBoundedPageCache: of a copy into a file most has left the page cache.
func TestBoundedPageCache(t *testing.T) {
	t.Parallel()
	const size = 32 * behind.Step
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type == unix.TMPFS_MAGIC {
		t.Skipf("%s is memory itself (%v)", dir, err)
	}
	src, dst := data(t, size), newFile(t, filepath.Join(dir, "dst"), size)
	if _, err := Copy(t.Context(), dst, src, Options{QueueDepth: 1}); err != nil {
		t.Fatal(err)
	}
	if cached := inPageCache(t, dst); cached > boundSteps*behind.Step {
		t.Errorf("%d of %d bytes are in the page cache, want %d at most", cached, size, boundSteps*behind.Step)
	}
	mustEqual(t, src, dst)
}

// inPageCache is how much of a file the page cache holds, in bytes.
func inPageCache(t *testing.T, d *disk.Disk) int64 {
	r, ok := d.FileRange(0, d.Size(), false)
	if !ok {
		t.Fatal("no file")
	}
	defer r.Release()
	var st unix.Cachestat_t
	if err := unix.Cachestat(uint(r.FD), &unix.CachestatRange{Len: uint64(r.Len)}, &st, 0); err != nil {
		t.Skipf("this kernel does not tell what it caches: %v", err)
	}
	return int64(st.Cache) * int64(unix.Getpagesize())
}

package diskcopy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// stopped copies src to target until n writes were made.
func stopped(t *testing.T, target, src *disk.Disk, journal string, n int64) *InterruptedError {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := &remote{child: target, keep: true}
	r.onWrite = func(int64, int64) error {
		if r.writes.Load() >= n {
			cancel()
		}
		return nil
	}
	_, err := Copy(ctx, disk.New(r, "target"), src, Options{Journal: journal, QueueDepth: 2})
	var ie *InterruptedError
	if !errors.As(err, &ie) || ie.Offset == 0 {
		t.Fatalf("not stopped in the middle: %v", err)
	}
	return ie
}

// unsampled is an offset in the first data of striped disks that no sample touches.
const unsampled = 123457

// TestResumeOfWhatChanged: what changed between two runs, where neither a stamp nor a
// sample shows it, is in the image of the second.
func TestResumeOfWhatChanged(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, src, target *disk.Disk){
		"source":             func(t *testing.T, src, _ *disk.Disk) { put(t, src, unsampled, 7) },
		"target":             func(t *testing.T, _, target *disk.Disk) { put(t, target, unsampled, 7) },
		"target's hole":      func(t *testing.T, _, target *disk.Disk) { put(t, target, 3*mib+unsampled, 7) },
		"target's rest":      func(t *testing.T, _, target *disk.Disk) { put(t, target, 91*mib+unsampled, 7) },
		"source now a hole":  func(t *testing.T, src, _ *disk.Disk) { zero(t, src, 0, mib) },
		"source now no hole": func(t *testing.T, src, _ *disk.Disk) { fill(t, src, 3*mib, mib, 5) },
	} {
		src, target := striped(t), dirty(t, 100*mib)
		journal := filepath.Join(t.TempDir(), "j")
		ie := stopped(t, target, src, journal, 12)
		change(t, src, target)
		st, err := Copy(context.Background(), disk.New(&remote{child: target, keep: true}, "target"), src, Options{Journal: journal, Resume: true})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		mustEqual(t, src, target)
		if st.ResumedAt != ie.Offset || st.CheckedBytes != ie.Offset {
			t.Errorf("%s: resumed at %d, checked %d, want %d", name, st.ResumedAt, st.CheckedBytes, ie.Offset)
		}
		if differed := st.DifferedBytes > 0; differed != (name != "target's rest") {
			t.Errorf("%s: %d bytes differed", name, st.DifferedBytes)
		}
		if st.DifferedBytes > mib {
			t.Errorf("%s: %d bytes were sent again for one block", name, st.DifferedBytes)
		}
	}
}

// TestResumeInTrust reads nothing of what is done but the samples, says so, and refuses
// what shows that it changed.
func TestResumeInTrust(t *testing.T) {
	t.Parallel()
	src, target := striped(t), dirty(t, 100*mib)
	journal := filepath.Join(t.TempDir(), "j")
	ie := stopped(t, target, src, journal, 12)
	from := &remote{child: src, keep: true}
	put(t, src, 0, 7)
	_, err := Copy(context.Background(), target, disk.New(from, "src"), Options{Journal: journal, Resume: true, Trust: true})
	if err == nil || !strings.Contains(err.Error(), "changed") {
		t.Fatalf("a source whose samples differ: %v", err)
	}
	fill(t, src, 0, mib, 0)
	from.reads.Store(0)
	to := &remote{child: target, keep: true}
	st, err := Copy(context.Background(), disk.New(to, "t"), disk.New(from, "src"), Options{Journal: journal, Resume: true, Trust: true})
	if err != nil {
		t.Fatal(err)
	}
	if st.CheckedBytes != 0 || st.TrustedBytes != ie.Offset || to.reads.Load() > samples+1 {
		t.Errorf("%+v, %d reads of the target", st, to.reads.Load())
	}
	mustEqual(t, src, target)
}

// TestPublish: the target gets its name when all is written, while the copy still keeps others out;
// if it does not get it, the journal goes on.
func TestPublish(t *testing.T) {
	t.Parallel()
	src, target := striped(t), memDisk(t, 100*mib)
	journal := filepath.Join(t.TempDir(), "j")
	o := Options{Journal: journal}
	refused := errors.New("no such name")
	o.Publish = func() error {
		mustEqual(t, src, target)
		if _, err := lockJournal(journal); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("the journal is free before the target has its name: %v", err)
		}
		if in, err := ReadJournal(journal); err != nil || in == nil || !in.Unnamed {
			t.Errorf("%+v, %v", in, err)
		}
		return refused
	}
	if _, err := Copy(context.Background(), target, src, o); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	o.Resume, o.Publish = true, func() error { return nil }
	if _, err := Copy(context.Background(), target, src, o); err != nil {
		t.Fatal(err)
	}
	if in, err := ReadJournal(journal); in != nil || err != nil {
		t.Errorf("the journal remains: %+v, %v", in, err)
	}
}

// TestTargetIsZeroOnResume: what the first run may have written is not zero any more.
func TestTargetIsZeroOnResume(t *testing.T) {
	t.Parallel()
	src, target := striped(t), memDisk(t, 100*mib)
	journal := filepath.Join(t.TempDir(), "j")
	r := &remote{child: target, keep: true}
	r.onWrite = func(off, _ int64) error {
		if off == 8*mib {
			return errors.New("lost")
		}
		return nil
	}
	o := Options{Journal: journal, TargetIsZero: true, QueueDepth: 4}
	if _, err := Copy(context.Background(), disk.New(r, "t"), src, o); err == nil {
		t.Fatal("not stopped")
	}
	fill(t, target, 8*mib, mib, 3) // as if the write had come half way
	zero(t, src, 8*mib, mib)
	o.Resume = true
	st, err := Copy(context.Background(), disk.New(&remote{child: target, keep: true}, "t"), src, o)
	if err != nil || st.ResumedAt > 8*mib {
		t.Fatalf("%+v, %v", st, err)
	}
	mustEqual(t, src, target)
}

func zero(t *testing.T, d *disk.Disk, off, n int64) {
	t.Helper()
	if err := d.Zero(context.Background(), off, n, disk.MayTrim); err != nil {
		t.Fatal(err)
	}
}

// TestJournalLock: of many that take the journal one has it, and a lock on a file that lost its
// name meanwhile is not taken for one.
func TestJournalLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	late, err := openJournalFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if named, err := lockNamed(late, path); named || err != nil {
		t.Errorf("a removed file: %v, %v", named, err)
	}
	var holders atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			if j, err := lockJournal(path); err == nil {
				if holders.Add(1) > 1 {
					t.Error("two have the journal")
				}
				<-start // the others have tried
				holders.Add(-1)
				j.close()
			} else if !strings.Contains(err.Error(), "in use by another copy") {
				t.Error(err)
			}
		})
	}
	for holders.Load() == 0 {
		runtime.Gosched()
	}
	if named, err := lockNamed(late, path); named || err != nil {
		t.Errorf("a file that another one has the name of: %v, %v", named, err)
	}
	close(start)
	wg.Wait()
}

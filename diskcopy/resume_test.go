package diskcopy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/noextents"
	"github.com/vmdisk/vmdisk/filter/volatile"
)

// dirty is a disk that holds old content everywhere.
func dirty(t testing.TB, size int64) *disk.Disk {
	d := memDisk(t, size)
	fill(t, d, 0, size, 99)
	return d
}

// TestInterruptAndResume cancels a copy in the middle, several times over.
func TestInterruptAndResume(t *testing.T) {
	t.Parallel()
	for _, extents := range []bool{true, false} {
		src, target := striped(t), dirty(t, 100*mib)
		if !extents {
			target = noextents.New(target)
		}
		journal := filepath.Join(t.TempDir(), "j")
		var written, resumedAt int64
		for turn := 0; ; turn++ {
			if turn > 20 {
				t.Fatal("the copy does not come to an end")
			}
			ctx, cancel := context.WithCancel(context.Background())
			r := &remote{child: target}
			r.onWrite = func(int64, int64) error {
				if r.writes.Load() >= 12 {
					cancel()
				}
				return nil
			}
			st, err := Copy(ctx, disk.New(r, "target"), src, Options{Journal: journal, Resume: turn > 0, QueueDepth: 4})
			cancel()
			written += r.wrote.Load()
			if st.ResumedAt < resumedAt || turn > 1 && st.ResumedAt == resumedAt {
				t.Fatalf("resumed at %d after %d", st.ResumedAt, resumedAt)
			}
			resumedAt = st.ResumedAt
			if st.ResentBytes != 0 {
				t.Errorf("%d bytes sent again after a clean stop", st.ResentBytes)
			}
			if err == nil {
				break
			}
			var ie *InterruptedError
			if !errors.As(err, &ie) || !errors.Is(err, context.Canceled) || ie.Size != 100*mib || ie.Journal != journal || ie.Offset <= resumedAt {
				t.Fatalf("turn %d: %v", turn, err)
			}
		}
		if written != 50*mib {
			t.Errorf("%d bytes written in all, want each once", written)
		}
		if resumedAt == 0 {
			t.Error("never resumed")
		}
		if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the journal remains: %v", err)
		}
		mustEqual(t, src, target)
	}
}

// TestResumeAfterCrash loses everything that the target had not flushed, at
// different moments: what the journal promises has to be there.
func TestResumeAfterCrash(t *testing.T) {
	t.Parallel()
	src := striped(t)
	for _, after := range []int64{1, 5, 17, 45} {
		target := dirty(t, 100*mib)
		journal := filepath.Join(t.TempDir(), "j")
		// The volatile filter owns its child, so the child is a view that stays open.
		v := volatile.New(disk.New(&remote{child: target, keep: true}, "stable"))
		f := &failing{remote: remote{child: v}}
		f.writeErr, f.flushErr, f.zeroErr = syscall.ESHUTDOWN, syscall.ESHUTDOWN, syscall.ESHUTDOWN
		f.after.Store(after)
		f.onWrite = func(int64, int64) error { time.Sleep(time.Millisecond); return nil }
		_, err := Copy(context.Background(), disk.New(f, "target"), src, Options{Journal: journal, Checkpoint: 2 * time.Millisecond, QueueDepth: 8})
		var ie *InterruptedError
		if !errors.As(err, &ie) || !errors.Is(err, syscall.ESHUTDOWN) {
			t.Fatalf("after %d: %v", after, err)
		}
		_ = v.Close() // the crash
		st, err := Copy(context.Background(), target, src, Options{Journal: journal, Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		if st.ResumedAt != ie.Offset {
			t.Errorf("resumed at %d, the error said %d", st.ResumedAt, ie.Offset)
		}
		if sent := f.wrote.Load(); sent > 0 && (st.ResentBytes == 0 && st.ResumedAt < sent || st.ResentBytes > st.Write.Bytes) {
			t.Errorf("%d bytes were sent before the crash, resumed at %d, %d sent again", sent, st.ResumedAt, st.ResentBytes)
		}
		mustEqual(t, src, target)
	}
}

// TestTornJournal resumes from every prefix of a journal.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	src, path := striped(t), filepath.Join(t.TempDir(), "j")
	target := memDisk(t, 100*mib)
	ctx, cancel := context.WithCancel(context.Background())
	r := &remote{child: target, onWrite: func(off, _ int64) error {
		if off > 70*mib {
			cancel()
		}
		return nil
	}}
	if _, err := Copy(ctx, disk.New(r, "t"), src, Options{Journal: path, QueueDepth: 2}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil || bytes.Count(whole, []byte("\n")) < 3 {
		t.Fatalf("%v, %q", err, whole)
	}
	points := map[int64]bool{}
	for n := 0; n < len(whole)+7; n += 7 {
		n := min(n, len(whole))
		text := append(bytes.Clone(whole[:n]), "\x00garbage"[:n%9]...)
		if n < 20 {
			text = whole[:n]
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		count := &remote{child: target}
		st, err := Copy(context.Background(), disk.New(count, "t"), src, Options{Journal: path, Resume: true})
		if err != nil {
			t.Fatalf("%d bytes of %q: %v", n, whole, err)
		}
		points[st.ResumedAt] = true
	}
	mustEqual(t, src, target)
	if !points[0] || len(points) != 2 {
		t.Errorf("resumed at %v, want at 0 and at the last whole record", points)
	}
}

// TestJournalRefusals: a journal is used only for the copy it belongs to, and
// no other file is taken for one.
func TestJournalRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, target := striped(t), dirty(t, 100*mib)
	interrupt := func(path string) {
		t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var n atomic.Int64
		r := &remote{child: target, onWrite: func(int64, int64) error {
			if n.Add(1) == 20 {
				cancel()
			}
			return nil
		}}
		if _, err := Copy(ctx, disk.New(r, "t"), src, Options{Journal: path}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "j")
	interrupt(path)
	before, _ := os.ReadFile(path)
	other := filepath.Join(dir, "data")
	if err := os.WriteFile(other, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := striped(t)
	put(t, changed, 0, 7)
	for name, c := range map[string]struct {
		dst, src *disk.Disk
		journal  string
		want     string
	}{
		"another source":   {target, memDisk(t, 100*mib), path, "source is not the one"},
		"a changed source": {target, changed, path, "source is not the one"},
		"a larger target":  {memDisk(t, 200*mib), src, path, "target is not the one"},
		"an empty target":  {memDisk(t, 100*mib), src, path, "does not hold what journal"},
		"no journal":       {target, src, other, "not a vmdisk journal"},
		"a folder":         {target, src, dir, "is a directory"},
		"no folder":        {target, src, filepath.Join(dir, "none", "j"), "no such file"},
	} {
		r := &remote{child: c.dst}
		_, err := Copy(context.Background(), disk.New(r, "t"), c.src, Options{Journal: c.journal, Resume: true})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if r.writes.Load()+r.zeroes.Load() != 0 {
			t.Errorf("%s: the target was written to", name)
		}
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a refused copy changed the journal")
	}
	if text, _ := os.ReadFile(other); string(text) != "precious" {
		t.Errorf("the other file became %q", text)
	}
	j, _, err := openJournalFile(path, journalHead{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	if _, err := Copy(context.Background(), target, src, Options{Journal: path}); err == nil || !strings.Contains(err.Error(), "in use by another copy") {
		t.Errorf("a journal in use: %v", err)
	}
	if _, err := Copy(context.Background(), target, src, Options{Resume: true}); err == nil {
		t.Error("resumed without a journal")
	}
}

func FuzzParseJournal(f *testing.F) {
	f.Add([]byte(`{"vmdisk_journal":1,"source":{"size":100},"target":{"size":100}}` + "\n" + `{"issued":67108864}` + "\n" + `{"done":50,"zeroed":[[10,20]],"sent":60}` + "\n"))
	f.Add([]byte(`{"vmdisk_j`))
	f.Add([]byte("precious\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		head, state, valid, err := parseJournal(text)
		if err != nil {
			return
		}
		if valid < 0 || valid > int64(len(text)) || state.Done < 0 || state.Done > max(head.Source.Size, 0) {
			t.Fatalf("valid %d, %+v", valid, state)
		}
		again, state2, valid2, err := parseJournal(text[:valid])
		if err != nil || again != head || state2.Done != state.Done || valid2 != valid {
			t.Fatalf("the valid part reads differently: %+v, %v", state2, err)
		}
	})
}

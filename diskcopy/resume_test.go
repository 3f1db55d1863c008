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

// TestTornJournal resumes from every prefix of a journal, and from journals with a bit changed.
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
	if err != nil || len(whole) != journalSize {
		t.Fatalf("%v, %d bytes", err, len(whole))
	}
	s, err := parseJournal(whole)
	if err != nil || s.done.Upto == 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	for n := range len(whole) {
		if n > 300 && n%journalBlock > 150 && n%97 != 0 {
			continue
		}
		cut, err := parseJournal(whole[:n])
		if err != nil || cut.done.Upto != 0 && cut.done != s.done {
			t.Fatalf("%d bytes: %+v, %v", n, cut, err)
		}
		flipped := bytes.Clone(whole)
		flipped[n] ^= 4
		cut, err = parseJournal(flipped)
		if n >= len(journalMagic)+1 && (err != nil || cut.done.Upto != 0 && cut.done != s.done) {
			t.Fatalf("bit at %d: %+v, %v", n, cut, err)
		}
	}
	for _, n := range []int{0, 3, 100, journalBlock, 2*journalBlock + 5, len(whole)} {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		cut, _ := parseJournal(whole[:n])
		st, err := Copy(context.Background(), disk.New(&remote{child: target}, "t"), src, Options{Journal: path, Resume: true})
		if err != nil || st.ResumedAt != cut.done.Upto {
			t.Fatalf("%d bytes: resumed at %d, want %d: %v", n, st.ResumedAt, cut.done.Upto, err)
		}
	}
	mustEqual(t, src, target)
}

// TestJournalIsBounded: however many records a copy makes.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	j, err := lockJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	head := journalHead{Version: journalVersion, Source: identity{Size: 1 << 50}}
	if _, err := j.takeOver(head, false, nil); err != nil {
		t.Fatal(err)
	}
	for i := range int64(3000) {
		j.sending(i << 30)
		if err := j.advance(i<<29, 0); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Size() != journalSize || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", st, err)
	}
	if in, err := ReadJournal(path); err != nil || in.Done != 2999<<29 || in.Size != 1<<50 {
		t.Errorf("%+v, %v", in, err)
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
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte(`{"vmdisk_journal":1,"source":{"size":104857600},"target":{"size":104857600}}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dst, src *disk.Disk
		journal  string
		want     string
	}{
		"another source":  {target, memDisk(t, 99*mib), path, "source is not the one"},
		"a larger target": {memDisk(t, 200*mib), src, path, "target is not the one"},
		"an old journal":  {target, src, old, "version 1"},
		"no journal":      {target, src, other, "not a vmdisk journal"},
		"a folder":        {target, src, dir, "is a directory"},
		"a device":        {target, src, "/dev/null", "not a vmdisk journal"},
		"no folder":       {target, src, filepath.Join(dir, "none", "j"), "no such file"},
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
	if _, err := Copy(context.Background(), target, src, Options{Journal: old}); err != nil {
		t.Errorf("begun anew over an old journal: %v", err)
	}
	j, err := lockJournal(path)
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
	whole := func(blocks ...any) (p []byte) {
		for _, b := range blocks {
			block, err := encodeBlock(b)
			if err != nil {
				f.Fatal(err)
			}
			p = append(p, block...)
		}
		return p
	}
	head := journalHead{Version: journalVersion, Source: identity{Size: 100}, Target: identity{Size: 100}}
	f.Add(whole(head, journalMark{1, 50}, journalMark{2, 60}, journalMark{1, 70}, journalMark{2, 1 << 40}))
	f.Add([]byte(`{"vmdisk_j`))
	f.Add([]byte("precious\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseJournal(text)
		if err != nil || !s.valid {
			return
		}
		if size := s.head.Source.Size; s.done.Upto < 0 || s.done.Upto > size || s.issued.Upto < s.done.Upto || s.issued.Upto > size {
			t.Fatalf("%+v", s)
		}
	})
}

package diskcopy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

func contentOf(t *testing.T, d *disk.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if err := d.ReadAt(context.Background(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStreams exports disks of odd sizes and imports them again, into dirty disks and new files.
func TestStreams(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 8))
		size := 1 + r.Int64N(9*mib)
		src := memDisk(t, size)
		for range r.IntN(8) {
			off := r.Int64N(size)
			fill(t, src, off, min(size-off, 1+r.Int64N(mib)), r.Int64N(100))
		}
		o := Options{RequestSize: 4096 << r.IntN(9), QueueDepth: 1 + r.IntN(9)}
		var out bytes.Buffer
		st, err := Export(context.Background(), &out, src, o)
		if err != nil || st.Size != size || !bytes.Equal(out.Bytes(), contentOf(t, src)) {
			t.Fatalf("seed %d: export: %v, %+v", seed, err, st)
		}
		dst := dirty(t, size+mib)
		if _, err := Import(context.Background(), dst, bytes.NewReader(out.Bytes()), false, o); err != nil {
			t.Fatalf("seed %d: import: %v", seed, err)
		}
		if got := contentOf(t, dst); !bytes.Equal(got[:size], out.Bytes()) || isZero(got[size:]) {
			t.Fatalf("seed %d: the imported disk differs", seed)
		}
		path := filepath.Join(t.TempDir(), "new")
		if err := file.Create(context.Background(), path, 0, file.PreallocOff); err != nil {
			t.Fatal(err)
		}
		fresh, err := file.OpenDisk(context.Background(), path, file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o.Journal = path + ".journal"
		o.Publish = func() error {
			if in, err := ReadJournal(o.Journal); err != nil || in.Target != fresh.Info().ID {
				t.Errorf("seed %d: journal %+v, %v", seed, in, err)
			}
			return nil
		}
		st, err = Import(context.Background(), fresh, io.MultiReader(bytes.NewReader(out.Bytes())), true, o)
		_ = fresh.Close()
		got, err2 := os.ReadFile(path)
		if err != nil || err2 != nil || st.Size != size || !bytes.Equal(got, out.Bytes()) {
			t.Fatalf("seed %d: a new file: %v, %v, %+v", seed, err, err2, st)
		}
		if _, err := os.Stat(o.Journal); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("seed %d: the journal remains: %v", seed, err)
		}
	}
}

// endless fails, or is cancelled, in the middle.
type endless struct{ at func(n int64) error }

func (e *endless) n(p []byte) (int, error) { return len(p), e.at(int64(len(p))) }

func (e *endless) Write(p []byte) (int, error) { return e.n(p) }
func (e *endless) Read(p []byte) (int, error) {
	if err := e.at(int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestStreamFaults: whichever end fails, the copy ends with that error and nothing hangs.
func TestStreamFaults(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	broken := errors.New("broken pipe")
	after := func(n int64, err error) *endless {
		return &endless{func(k int64) error {
			if n -= k; n < 0 {
				return err
			}
			return nil
		}}
	}
	src := striped(t)
	if _, err := Export(ctx, after(10*mib, broken), src, Options{}); !errors.Is(err, broken) {
		t.Errorf("export to a broken pipe: %v", err)
	}
	bad := disk.New(&failing{remote: remote{child: src, keep: true}, readErr: broken}, "bad")
	if _, err := Export(ctx, io.Discard, bad, Options{}); !errors.Is(err, broken) {
		t.Errorf("export of a bad source: %v", err)
	}
	if _, err := Import(ctx, memDisk(t, 100*mib), after(10*mib, broken), false, Options{}); !errors.Is(err, broken) {
		t.Errorf("import of a broken stream: %v", err)
	}
	if _, err := Import(ctx, memDisk(t, 10*mib), after(1<<60, nil), false, Options{}); err == nil || !strings.Contains(err.Error(), "the stream is longer") {
		t.Errorf("import of more than there is room for: %v", err)
	}
	worse := disk.New(&failing{remote: remote{child: memDisk(t, 100*mib), keep: true}, writeErr: broken}, "bad")
	if _, err := Import(ctx, worse, bytes.NewReader(noise()), false, Options{}); !errors.Is(err, broken) {
		t.Errorf("import to a bad target: %v", err)
	}
	stop, cancel := context.WithCancel(ctx)
	if _, err := Export(stop, &endless{func(int64) error { cancel(); return nil }}, src, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled export: %v", err)
	}
	stop, cancel = context.WithCancel(ctx)
	if _, err := Import(stop, memDisk(t, 100*mib), &endless{func(int64) error { cancel(); return nil }}, false, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled import: %v", err)
	}
}

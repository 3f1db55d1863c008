package diskcopy

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// TestFaultsAnywhere fails one kind of operation after any number of good ones:
// the copy ends with an error of that side, and never as if it were complete.
func TestFaultsAnywhere(t *testing.T) {
	t.Parallel()
	src := memDisk(t, 24*mib)
	for i := int64(0); i < 24; i += 2 {
		fill(t, src, i*mib, mib, i)
	}
	for name, c := range map[string]struct {
		side Side
		set  func(f *failing)
		err  error
	}{
		"read":    {Source, func(f *failing) { f.readErr = syscall.EIO }, syscall.EIO},
		"map":     {Source, func(f *failing) { f.extentsErr = syscall.EIO }, syscall.EIO},
		"write":   {Target, func(f *failing) { f.writeErr = syscall.ENOSPC }, syscall.ENOSPC},
		"zero":    {Target, func(f *failing) { f.zeroErr = syscall.EIO }, syscall.EIO},
		"status":  {Target, func(f *failing) { f.extentsErr = syscall.EIO }, syscall.EIO},
		"flush":   {Target, func(f *failing) { f.flushErr = syscall.EIO }, syscall.EIO},
		"connect": {Target, func(f *failing) { f.writeErr, f.zeroErr, f.flushErr = syscall.EPIPE, syscall.EPIPE, syscall.EPIPE }, syscall.EPIPE},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for after := int64(0); ; after++ {
				a, b := &failing{remote: remote{child: src}}, &failing{remote: remote{child: dirty(t, 24*mib)}}
				f := a
				if c.side == Target {
					f = b
				}
				c.set(f)
				f.after.Store(after)
				_, err := Copy(context.Background(), disk.New(b, "b"), disk.New(a, "a"), Options{QueueDepth: 3, Strategy: Strategies()[after%6]})
				if f.after.Load() >= 0 { // the fault was never reached
					if err != nil {
						t.Fatalf("after %d: %v", after, err)
					}
					mustEqual(t, src, b.child)
					if after < 6 {
						continue // a strategy that does not need this kind
					}
					return
				}
				var ce *CopyError
				if !errors.As(err, &ce) || ce.Side != c.side || !errors.Is(err, c.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("after %d: %v", after, err)
				}
			}
		})
	}
}

// stuck blocks writes until their context ends.
type stuck struct{ remote }

func (s *stuck) WriteAt(ctx context.Context, _ []byte, _ int64, _ disk.Flags) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestGrace: a target that does not answer cannot hold a cancelled copy.
func TestGrace(t *testing.T) {
	t.Parallel()
	src, dst := striped(t), disk.New(&stuck{remote{child: memDisk(t, 100*mib)}}, "stuck")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := Copy(ctx, dst, src, Options{Grace: 50 * time.Millisecond})
	if took := time.Since(start); err == nil || took > 5*time.Second || took < 50*time.Millisecond {
		t.Fatalf("%v after %v", err, took)
	}
	if !errors.Is(err, disk.ErrGrace) {
		t.Error(err)
	}
}

// silent is stuck behind a server that has not answered for a while.
type silent struct{ stuck }

func (*silent) Waiting() time.Duration { return 5 * time.Second }

// TestSilentServer: progress says whom a copy waits for, and a copy that is cancelled
// ends at once, without the grace that a server which answers would get.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	src, dst := striped(t), disk.New(&silent{stuck{remote{child: memDisk(t, 100*mib)}}}, "nbd://deaf")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := make(chan Progress, 1)
	_, err := Copy(ctx, dst, src, Options{Grace: time.Hour, ProgressEvery: time.Millisecond, Progress: func(p Progress) {
		if p.WaitingFor != "" {
			select {
			case told <- p:
				cancel()
			default:
			}
		}
	}})
	if !errors.Is(err, disk.ErrGrace) {
		t.Error(err)
	}
	if p := <-told; p.WaitingFor != "nbd://deaf" || p.WaitingSeconds != 5 {
		t.Errorf("%+v", p)
	}
}

// TestRefused: what cannot work is refused before anything is touched.
func TestRefused(t *testing.T) {
	t.Parallel()
	src := memDisk(t, 4*mib)
	fill(t, src, 0, 4*mib, 1)
	named := func(in *disk.Info) { in.ID = "same" }
	readOnly := disk.New(&shaped{remote{child: memDisk(t, 4*mib)}, func(in *disk.Info) { in.ReadOnly = true }}, "sealed")
	for name, c := range map[string]struct {
		dst  *disk.Disk
		o    Options
		want string
	}{
		"small":     {memDisk(t, 4*mib-1), Options{}, "too small for the 4194304 bytes"},
		"read-only": {readOnly, Options{}, "target: sealed: disk is read-only"},
		"request":   {memDisk(t, 4*mib), Options{RequestSize: 5000}, "power of two"},
		"request0":  {memDisk(t, 4*mib), Options{RequestSize: -1}, "power of two"},
		"depth":     {memDisk(t, 4*mib), Options{QueueDepth: -1}, "1 to 1024"},
		"memory":    {memDisk(t, 4*mib), Options{QueueDepth: 1024, RequestSize: 64 << 20}, "16 GiB"},
		"sparse":    {memDisk(t, 4*mib), Options{SparseSize: 100}, "sparse size"},
		"strategy":  {memDisk(t, 4*mib), Options{Strategy: "fast"}, "use one of auto, write"},
		"same":      {disk.New(&shaped{remote{child: memDisk(t, 4*mib)}, named}, "b"), Options{}, "same storage"},
	} {
		from := src
		if name == "same" {
			from = disk.New(&shaped{remote{child: src}, named}, "a")
		}
		if _, err := Copy(context.Background(), c.dst, from, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if r, err := Compare(context.Background(), c.dst, memDisk(t, c.dst.Size()), CompareOptions{}); err != nil || !r.Equal {
			t.Errorf("%s: the target was touched", name)
		}
	}
}

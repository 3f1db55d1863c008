package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Requests are cut to the driver's limits, which are rounded down to blocks.
func TestSplitting(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProbe(disk.Info{Size: 10_000, Min: 512, MaxIO: 1500, MaxZero: 3000, MaxTrim: 5000, TrimAlign: 1536,
		Zero: disk.Native, Trim: disk.Native, FUA: disk.Native})
	d := disk.New(p, "d")
	buf := make([]byte, 10_000)

	must(t, d.ReadAt(ctx, buf[:2560], 512))
	p.expect(t, "read", "read 512+1024", "read 1536+1024", "read 2560+512")
	must(t, d.WriteAt(ctx, buf[:1700], 8300, disk.FUA))
	p.expect(t, "write up to the end", "read 8192+512", "write 8192+512 fua", "write 8704+1024 fua", "write 9728+272 fua")
	must(t, d.ReadAt(ctx, buf[:10], 9985))
	p.expect(t, "read in the last, short block", "read 9728+272")
	must(t, d.Zero(ctx, 100, 6000, disk.MayTrim|disk.FUA))
	p.expect(t, "zero", "zero 512+2560 fua trim", "zero 3072+2560 fua trim", "read 0+512", "write 0+512 fua",
		"read 5632+512", "write 5632+512 fua")
	must(t, d.Trim(ctx, 1, 9998, 0))
	p.expect(t, "trim, inward", "trim 1536+4608", "trim 6144+3072")
	must(t, d.Trim(ctx, 1536, 10_000-1536, disk.FUA))
	p.expect(t, "trim up to the end", "trim 1536+4608 fua", "trim 6144+3856 fua")
	must(t, d.Trim(ctx, 1537, 1500, 0))
	p.expect(t, "trim of less than a unit")
	must(t, d.Readv(ctx, [][]byte{buf[:512], buf[:10], buf[:502]}, 0))
	p.expect(t, "vector without a Vectorer", "read 0+512", "read 512+512", "read 512+512")
}

func TestEmulatedZero(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProbe(disk.Info{Size: 1 << 20})
	d := disk.New(p, "d")
	must(t, d.Zero(ctx, 5, 300_000, disk.MayTrim))
	p.expect(t, "without a zero", "write 5+262144", "write 262149+37856")
	p.info.Zero = disk.Native
	p.before = func(_ context.Context, call string) error {
		if call[0] == 'z' {
			return syscall.EOPNOTSUPP
		}
		return nil
	}
	d.Refresh()
	must(t, d.Zero(ctx, 0, 4096, disk.MayTrim))
	p.expect(t, "a zero that cannot at run time", "write 0+4096")
	p.before = func(_ context.Context, call string) error { return syscall.EIO }
	is(t, "a zero that fails", d.Zero(ctx, 0, 4096, 0), syscall.EIO)
	p.expect(t, "a zero that fails")
}

// FastOnly reaches a driver that has it, touches nothing when refused, and once
// a step was fast the rest is zeroed by any means.
func TestFastOnly(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	p := newProbe(disk.Info{Size: 1 << 20, Min: 512, MaxZero: 8192, Zero: disk.Native, FastZero: disk.Native})
	d := disk.New(p, "d")
	must(t, d.Zero(ctx, 0, 20_480, disk.FastOnly))
	p.expect(t, "fast", "zero 0+8192 fast", "zero 8192+8192", "zero 16384+4096")
	must(t, d.Zero(ctx, 100, 2000, disk.FastOnly|disk.MayTrim))
	p.expect(t, "partial blocks after the fast part", "zero 512+1536 trim fast", "read 0+512", "write 0+512", "read 2048+512", "write 2048+512")
	is(t, "within a block", d.Zero(ctx, 10, 500, disk.FastOnly), disk.ErrNotFast)
	p.expect(t, "within a block")

	for _, refusal := range []error{disk.ErrNotFast, errors.ErrUnsupported, syscall.EOPNOTSUPP} {
		p.before = func(context.Context, string) error { return refusal }
		is(t, "refused", d.Zero(ctx, 100, 20_480, disk.FastOnly), disk.ErrNotFast)
		p.expect(t, "refused")
	}
	later := 0
	p.before = func(_ context.Context, call string) error {
		if call[0] == 'z' {
			if later++; later > 1 {
				return errors.ErrUnsupported
			}
		}
		return nil
	}
	must(t, d.Zero(ctx, 0, 16_384, disk.FastOnly))
	p.expect(t, "refused at the second step", "zero 0+8192 fast", "write 8192+8192")

	p.before = nil
	for _, level := range []disk.Level{disk.None, disk.Emulated} {
		p.info.FastZero = level
		d.Refresh()
		is(t, "no fast zero", d.Zero(ctx, 0, 512, disk.FastOnly), disk.ErrNotFast)
		is(t, "no fast zero", d.Zero(ctx, 0, 512, disk.FastOnly), errors.ErrUnsupported)
		p.expect(t, "no fast zero")
	}
}

// FUA is passed to a driver that has it; else a flush follows, where there is
// anything to flush.
func TestFUA(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for _, c := range []struct {
		fua      disk.Level
		volatile bool
		native   string
		flush    bool
	}{
		{disk.Native, true, " fua", false},
		{disk.Native, false, " fua", false},
		{disk.Emulated, true, "", true},
		{disk.Emulated, false, "", true},
		{disk.None, true, "", true},
		{disk.None, false, "", false},
	} {
		what := fmt.Sprintf("FUA %v, volatile %v", c.fua, c.volatile)
		p := newProbe(disk.Info{Size: 8192, FUA: c.fua, Volatile: c.volatile, Zero: disk.Native, Trim: disk.Native})
		d := disk.New(p, "d")
		for op, call := range map[string]func() error{
			"write": func() error { return d.WriteAt(ctx, make([]byte, 512), 0, disk.FUA) },
			"zero":  func() error { return d.Zero(ctx, 0, 512, disk.FUA) },
			"trim":  func() error { return d.Trim(ctx, 0, 512, disk.FUA) },
		} {
			must(t, call())
			want := []string{op + " 0+512" + c.native}
			if c.flush {
				want = append(want, "flush")
			}
			p.expect(t, what, want...)
		}
		must(t, d.Writev(ctx, [][]byte{make([]byte, 10), make([]byte, 10)}, 0, disk.FUA))
		want := []string{"write 0+10" + c.native, "write 10+10" + c.native}
		if c.flush {
			want = append(want, "flush")
			is(t, "inline write that a flush follows", d.TryWrite(make([]byte, 1), 0, disk.FUA), disk.ErrWouldBlock)
		}
		p.expect(t, what, want...)
	}
}

func TestFlushFailuresStick(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var fail error
	p := newProbe(disk.Info{Size: 8192, FUA: disk.Emulated})
	p.before = func(ctx context.Context, call string) error {
		if call == "flush" {
			return errors.Join(fail, ctx.Err())
		}
		return nil
	}
	d := disk.New(p, "d")
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	is(t, "cancelled", d.Flush(cancelled), context.Canceled)
	must(t, d.Flush(ctx)) // a cancelled flush does not stick
	p.take()
	fail = syscall.ENOSPC
	is(t, "failed by FUA", d.WriteAt(ctx, make([]byte, 512), 0, disk.FUA), syscall.ENOSPC)
	fail = nil
	is(t, "after", d.Flush(ctx), syscall.ENOSPC)
	is(t, "after, FUA", d.WriteAt(ctx, make([]byte, 512), 0, disk.FUA), syscall.ENOSPC)
	q, err := d.NewQueue(1)
	must(t, err)
	if _, err := q.Submit([]disk.Op{{Kind: disk.Flush}}); err != nil {
		t.Fatal(err)
	}
	done := make([]disk.Completion, 1)
	if _, err := q.Reap(ctx, 1, done); err != nil {
		t.Fatal(err)
	}
	is(t, "after, queued", done[0].Err, syscall.ENOSPC)
	must(t, q.Close())
	p.expect(t, "no flush is tried again", "write 0+512", "write 0+512")
	must(t, d.WriteAt(ctx, make([]byte, 512), 0, 0)) // writing goes on
}

// A flush that ran beside the one that failed may not claim success: the kernel
// tells a lost write to one of them alone.
func TestFlushBesideFailedOne(t *testing.T) {
	t.Parallel()
	inside, failed := make(chan struct{}), make(chan struct{})
	first := true
	p := newProbe(disk.Info{Size: 8192})
	p.before = func(context.Context, string) error {
		if first {
			first = false
			close(inside)
			<-failed
			return nil
		}
		return syscall.EIO
	}
	d := disk.New(p, "d")
	result := make(chan error)
	go func() { result <- d.Flush(context.Background()) }()
	<-inside
	is(t, "the failed one", d.Flush(t.Context()), syscall.EIO)
	close(failed)
	is(t, "the one beside it", <-result, syscall.EIO)
}

func TestExtentsAreCut(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const zero = disk.ExtentZero
	p := newProbe(disk.Info{Size: 10_000, Min: 512, Maps: []disk.MapName{disk.Allocation, "dirty:a"}})
	d := disk.New(p, "d")
	for i, c := range []struct {
		off, n int64
		driver []disk.Extent
		want   []disk.Extent
		call   string
	}{
		{0, 1000, []disk.Extent{{Len: 512}, {Len: 512, Flags: zero}}, []disk.Extent{{Len: 512}, {Len: 512, Flags: zero}}, "extents allocation 0+1024"},
		{700, 100, []disk.Extent{{Len: 5000}}, []disk.Extent{{Len: 4812}}, "extents allocation 512+512"},
		{700, 100, []disk.Extent{{Len: 88}, {Len: 100}, {Len: 5000, Flags: zero}}, []disk.Extent{{Len: 5000, Flags: zero}}, "extents allocation 512+512"},
		{700, 100, []disk.Extent{{Len: 100}, {Len: 88}, {Len: 50}, {Len: 50, Flags: zero}, {Len: 7}}, []disk.Extent{{Len: 50}, {Len: 50, Flags: zero}}, "extents allocation 512+512"},
		{9999, 1, []disk.Extent{{Len: 1 << 62}, {Len: 1}}, []disk.Extent{{Len: 1}}, "extents allocation 9728+272"},
	} {
		p.extents = c.driver
		got, err := d.Extents(ctx, disk.Allocation, c.off, c.n, nil)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("case %d: %v, %v; want %v", i, got, err, c.want)
		}
		p.expect(t, fmt.Sprintf("case %d", i), c.call)
	}
	for _, bad := range [][]disk.Extent{nil, {{Len: 0}}, {{Len: -5}}, {{Len: 50}}} {
		p.extents = bad
		if got, err := d.Extents(ctx, disk.Allocation, 600, 100, nil); !errors.Is(err, disk.ErrCorrupt) || len(got) > 0 {
			t.Errorf("a driver that answers %v: %v, %v", bad, got, err)
		}
	}
	p.take()
	_, err := d.Extents(ctx, disk.Depth, 0, 1, nil)
	is(t, "a map that is not listed", err, errors.ErrUnsupported)
	p.info.Maps = nil
	d.Refresh()
	got, err := d.Extents(ctx, disk.Allocation, 3, 77, nil)
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]disk.Extent{{Len: 77}}) {
		t.Errorf("without a map: %v, %v", got, err)
	}
	p.expect(t, "without a map")
}

// An error names the disk, the operation and the place, once, at the layer
// nearest to the fault.
func TestErrors(t *testing.T) {
	t.Parallel()
	p := newProbe(disk.Info{Size: 8192})
	p.before = func(context.Context, string) error { return syscall.EIO }
	d := disk.New(disk.New(p, "inner"), "outer")
	err := d.ReadAt(t.Context(), make([]byte, 512), 1024)
	if want := "inner: read 512 bytes at offset 1024: input/output error"; err == nil || err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	var e *disk.Error
	if !errors.As(err, &e) || e.Op != "read" || e.Disk != "inner" || e.Off != 1024 || e.Len != 512 || e.Err != syscall.EIO {
		t.Errorf("%+v", e)
	}
	if err := d.Flush(t.Context()); err == nil || err.Error() != "inner: flush: input/output error" {
		t.Errorf("flush: %v", err)
	}
	is(t, "close", d.Close(), syscall.EIO)
	is(t, "second close", d.Close(), fs.ErrClosed)
}

func TestTrace(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var got []string
	p := newProbe(disk.Info{Size: 8192, Zero: disk.Native, Trim: disk.Native})
	d := disk.New(p, "d", disk.WithTrace(func(x disk.Trace) {
		got = append(got, fmt.Sprintf("%s %d+%d%s %v", x.Op, x.Off, x.Len, flagNames(x.Flags), x.Err == nil))
	}))
	must(t, d.ReadAt(ctx, make([]byte, 10), 5))
	must(t, d.Writev(ctx, [][]byte{make([]byte, 10), make([]byte, 20)}, 0, 0))
	must(t, d.Zero(ctx, 0, 4096, disk.MayTrim))
	must(t, d.Trim(ctx, 0, 4096, 0))
	must(t, d.Flush(ctx))
	is(t, "range", d.ReadAt(ctx, make([]byte, 10), 8192), disk.ErrRange)
	if err := d.TryRead(make([]byte, 1), 0); err != disk.ErrWouldBlock {
		t.Errorf("an inline read past the trace: %v", err)
	}
	want := []string{"read 5+10 true", "write 0+10 true", "write 10+20 true", "zero 0+4096 trim true", "trim 0+4096 true",
		"flush -1+0 true", "read 8192+10 false"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("traced\n     %q\nwant %q", got, want)
	}
}

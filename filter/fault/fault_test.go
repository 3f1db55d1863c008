package fault_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/fault"
)

func ram(tb testing.TB) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(2<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func open(tb testing.TB, cfg fault.Config) *disk.Disk {
	tb.Helper()
	d, err := fault.Open(ram(tb), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	disktest.Conformance(t, func(tb testing.TB) *disk.Disk { return fault.New(ram(tb)) }, disktest.Options{})
}

// ops does one operation of each kind and says which kinds failed, and how.
func ops(t *testing.T, d *disk.Disk) (failed fault.Op, err error) {
	t.Helper()
	ctx, p := t.Context(), make([]byte, 4096)
	_, extents := d.Extents(ctx, disk.Allocation, 0, 4096, nil)
	for op, e := range map[fault.Op]error{
		fault.Read: d.ReadAt(ctx, p, 0), fault.Write: d.WriteAt(ctx, p, 0, 0), fault.Zero: d.Zero(ctx, 0, 4096, 0),
		fault.Trim: d.Trim(ctx, 0, 4096, 0), fault.Flush: d.Flush(ctx), fault.Extents: extents, fault.Cache: d.Cache(ctx, 0, 4096),
	} {
		if e != nil {
			failed, err = failed|op, e
		}
	}
	return failed, err
}

func rate(f float64) *float64 { return &f }

func TestConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "inject")
	some := []fault.OpConfig{{Op: fault.Write, Setting: fault.Setting{Error: "ENOSPC", Rate: rate(1)}}}
	for name, c := range map[string]struct {
		cfg    fault.Config
		failed fault.Op
		err    error
	}{
		"everything":        {fault.Config{}, fault.Any, syscall.EIO},
		"named":             {fault.Config{Setting: fault.Setting{Error: "enospc"}}, fault.Any, syscall.ENOSPC},
		"some":              {fault.Config{Ops: fault.Write | fault.Zero}, fault.Write | fault.Zero, syscall.EIO},
		"never":             {fault.Config{Setting: fault.Setting{Rate: rate(0)}}, 0, nil},
		"always":            {fault.Config{Setting: fault.Setting{Rate: rate(1)}, Ops: fault.Trim}, fault.Trim, syscall.EIO},
		"no file":           {fault.Config{Setting: fault.Setting{File: file}}, 0, nil},
		"file":              {fault.Config{Setting: fault.Setting{File: "/"}, Ops: fault.Cache}, fault.Cache, syscall.EIO},
		"range":             {fault.Config{From: 4095, To: 4096}, fault.Any &^ fault.Flush, syscall.EIO},
		"other range":       {fault.Config{From: 4096, To: 8192}, 0, nil},
		"after":             {fault.Config{Ops: fault.Read, After: 1}, 0, nil},
		"one kind":          {fault.Config{Each: some}, fault.Write, syscall.ENOSPC},
		"one kind, default": {fault.Config{Each: some, Setting: fault.Setting{Rate: rate(0)}}, fault.Write, syscall.ENOSPC},
		"error of one kind": {fault.Config{Each: []fault.OpConfig{{Op: fault.Read, Setting: fault.Setting{Error: "EPERM"}}}, Ops: fault.Read}, fault.Read, syscall.EPERM},
	} {
		failed, err := ops(t, open(t, c.cfg))
		if failed != c.failed || !errors.Is(err, c.err) {
			t.Errorf("%s: %v failed with %v, want %v with %v", name, failed, err, c.failed, c.err)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	d := open(t, fault.Config{Ops: fault.Read, After: 2, Count: 3})
	var got string
	for range 8 {
		if d.ReadAt(t.Context(), make([]byte, 1), 0) == nil {
			got += "."
		} else {
			got += "F"
		}
	}
	if got != "..FFF..." {
		t.Errorf("reads went %s", got)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	count := func() (n int) {
		d := open(t, fault.Config{Setting: fault.Setting{Rate: rate(0.25)}, Seed: 9})
		for range 2000 {
			if d.ReadAt(t.Context(), make([]byte, 1), 0) != nil {
				n++
			}
		}
		return n
	}
	n := count()
	if n < 400 || n > 600 {
		t.Errorf("%d of 2000 reads failed at a rate of 25 %%", n)
	}
	if again := count(); again != n {
		t.Errorf("the same seed gave %d, then %d", n, again)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, cfg := range []fault.Config{
		{Setting: fault.Setting{Error: "EFOO"}}, {Setting: fault.Setting{Rate: rate(1.5)}}, {From: 5, To: 4}, {From: -1, To: 4},
		{Count: -1}, {Each: []fault.OpConfig{{Op: fault.Read, Setting: fault.Setting{Error: "?"}}}},
	} {
		if _, err := fault.Open(nil, cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	if _, err := fault.ParseOps("read+wrote"); err == nil {
		t.Error("an unknown operation was accepted")
	}
	if got, err := fault.ParseOps("pread+pwrite+flush"); got != fault.Read|fault.Write|fault.Flush || err != nil {
		t.Errorf("operations: %v, %v", got, err)
	}
}

// A fault has touched nothing, and nothing goes past the filter.
func TestNothingTouched(t *testing.T) {
	t.Parallel()
	child := ram(t)
	d := fault.New(child, fault.Fault{When: fault.On(fault.Write | fault.Zero), Err: syscall.EIO})
	p := []byte{1, 2, 3, 4}
	if err := d.WriteAt(t.Context(), p, 0, 0); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if err := d.TryWrite(p, 0, 0); err != disk.ErrWouldBlock {
		t.Errorf("inline write: %v", err)
	}
	q, err := d.NewQueue(1)
	if err != nil {
		t.Fatal(err)
	}
	done := make([]disk.Completion, 1)
	if n, err := q.Submit([]disk.Op{{Kind: disk.Write, Len: 4, Vec: [][]byte{p}}}); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := q.Reap(t.Context(), 1, done); n != 1 || err != nil || !errors.Is(done[0].Err, syscall.EIO) {
		t.Errorf("queued write: %d, %v, %v", n, err, done[0].Err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	got := make([]byte, 4)
	if err := child.ReadAt(t.Context(), got, 0); err != nil || string(got) != "\x00\x00\x00\x00" {
		t.Errorf("the disk below holds %v, %v", got, err)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	var s fault.Switch
	path := filepath.Join(t.TempDir(), "f")
	call := fault.Call{Op: fault.Write, Off: 100, Len: 10, Flags: disk.FUA}
	for name, c := range map[string]struct {
		rule fault.Rule
		want string // answers to six questions; before the fourth the file and the switch appear
	}{
		"always":  {fault.Always, "FFFFFF"},
		"not":     {fault.Not(fault.Always), "......"},
		"after":   {fault.After(2), "..FFFF"},
		"first":   {fault.First(2), "FF...."},
		"every":   {fault.Every(3), "..F..F"},
		"and":     {fault.And(fault.On(fault.Write), fault.After(5)), ".....F"},
		"or":      {fault.Or(fault.First(1), fault.After(3)), "F...FF"},
		"order":   {fault.And(fault.On(fault.Read), fault.First(9)), "......"},
		"flags":   {fault.WithFlags(disk.FUA), "FFFFFF"},
		"noflags": {fault.WithFlags(disk.MayTrim), "......"},
		"touch":   {fault.Within(109, 1), "FFFFFF"},
		"below":   {fault.Within(0, 100), "......"},
		"above":   {fault.Within(110, 1), "......"},
		"never":   {fault.Rate(0, 1), "......"},
		"certain": {fault.Rate(1, 1), "FFFFFF"},
		"file":    {fault.WhileExists(path), "...FFF"},
		"switch":  {s.Rule, "...FFF"},
	} {
		os.Remove(path)
		s.Set(false)
		var got string
		for i := range 6 {
			if i == 3 {
				s.Set(true)
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.rule(call) {
				got += "F"
			} else {
				got += "."
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// The rules fail a disk that can lose its power, too.
func TestHook(t *testing.T) {
	t.Parallel()
	hook := fault.Hook(fault.Fault{When: fault.On(fault.Flush | fault.Trim), Err: syscall.EIO})
	d := disktest.NewCrash(disktest.CrashConfig{Size: 1 << 20, Fail: hook}).Open()
	failed, err := ops(t, d)
	if failed != fault.Flush|fault.Trim || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v failed with %v", failed, err)
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(_ testing.TB, d *disk.Disk) *disk.Disk { return fault.New(d) }, disktest.Options{})
}

func Example() {
	d, _ := mem.Open(1 << 20)
	full := fault.And(fault.On(fault.Write|fault.Zero), fault.Within(4096, 1<<20))
	f := fault.New(d, fault.Fault{When: full, Err: syscall.ENOSPC})
	fmt.Println(f.WriteAt(context.Background(), make([]byte, 512), 0, 0))
	fmt.Println(errors.Is(f.WriteAt(context.Background(), make([]byte, 512), 4096, 0), syscall.ENOSPC))
	// Output:
	// <nil>
	// true
}

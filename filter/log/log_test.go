package log_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/filter/log"
)

func open(tb testing.TB, cfg log.Config) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(2<<20 + 100)
	if err != nil {
		tb.Fatal(err)
	}
	d, err = log.New(d, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
		return open(tb, log.Config{File: filepath.Join(tb.TempDir(), "log")})
	}, disktest.Options{})
}

var varying = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z |took=\d+us`)

func TestLines(t *testing.T) {
	t.Parallel()
	ctx, file := t.Context(), filepath.Join(t.TempDir(), "log")
	d := open(t, log.Config{File: file})
	p := make([]byte, 512)
	_, err := d.Extents(ctx, disk.Allocation, 0, 1<<20, nil)
	for _, err := range []error{
		err, d.WriteAt(ctx, p, 4096, disk.FUA), d.ReadAt(ctx, p, 0), d.Zero(ctx, 0, 65536, disk.MayTrim|disk.FastOnly),
		d.Trim(ctx, 0, 65536, 0), d.Flush(ctx), d.Cache(ctx, 0, 1), d.Close(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const want = `extents id=1 offset=0x0 count=0x100000
...extents id=1 T
write id=2 offset=0x1000 count=0x200 fua
...write id=2 T
read id=3 offset=0x0 count=0x200
...read id=3 T
zero id=4 offset=0x0 count=0x10000 maytrim fast
...zero id=4 T
trim id=5 offset=0x0 count=0x10000
...trim id=5 T
flush id=6
...flush id=6 T
cache id=7 offset=0x0 count=0x1
...cache id=7 T
close id=8
...close id=8 T
`
	clean := varying.ReplaceAllStringFunc(string(got), func(s string) string {
		if strings.HasPrefix(s, "took") {
			return "T"
		}
		return ""
	})
	if clean != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}

type broken struct{ disk.Driver }

func (broken) ReadAt(context.Context, []byte, int64) error { return syscall.EIO }

func TestErrorsAndAppending(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "log")
	for range 2 {
		child, _ := mem.Open(1 << 20)
		d, err := log.New(disk.New(broken{child}, "broken"), log.Config{File: file, Append: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	got, _ := os.ReadFile(file)
	if n := strings.Count(string(got), `error="broken: read 1 bytes at offset 0: input/output error"`); n != 2 {
		t.Errorf("%d errors in the log, want 2:\n%s", n, got)
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", filepath.Join(t.TempDir(), "no", "such")} {
		if _, err := log.New(nil, log.Config{File: name}); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	d := open(t, log.Config{File: "/dev/full"})
	if err := d.Flush(t.Context()); err != nil {
		t.Errorf("a full log fails the operation: %v", err)
	}
	if err := d.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("close after a full log: %v", err)
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	disktest.Durable(t, func(tb testing.TB, d *disk.Disk) *disk.Disk {
		d, err := log.New(d, log.Config{File: os.DevNull})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}, disktest.Options{})
}

func Example() {
	file := filepath.Join(os.TempDir(), "vmdisk-example.log")
	defer os.Remove(file)
	d, _ := mem.Open(1 << 20)
	d, _ = log.New(d, log.Config{File: file})
	_ = d.Flush(context.Background())
	_ = d.Close()
	text, _ := os.ReadFile(file)
	fmt.Println(strings.Fields(string(text))[1])
	// Output: flush
}

// TestLogIsNotTheDisk: a log that is the disk is refused, and the disk stays as it is.
func TestLogIsNotTheDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		child, err := file.Open(t.Context(), path, file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := disk.New(child, path)
		if _, err := log.New(d, log.Config{File: path, Append: keep}); err == nil || !strings.Contains(err.Error(), "is the disk itself") {
			t.Errorf("append %v: %v", keep, err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
			t.Errorf("append %v: the disk has %d bytes, %v", keep, st.Size(), err)
		}
	}
}

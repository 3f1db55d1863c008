package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// traced is a disk that notes what is read from it.
type traced struct {
	disk.Driver
	mu    sync.Mutex
	reads []string
}

func (d *traced) ReadAt(ctx context.Context, p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads = append(d.reads, fmt.Sprintf("%d %d", off, len(p)))
	return d.Driver.ReadAt(ctx, p, off)
}

// fioReads are the reads of fio's, which its null engine only pretends to make.
func fioReads(t *testing.T, opts string) (list []string) {
	t.Helper()
	dir := t.TempDir()
	args := append([]string{"--name=j", "--ioengine=null", "--bs=4k", "--write_iolog=trace", "--output=/dev/null"}, strings.Fields("--"+strings.ReplaceAll(opts, " ", " --"))...)
	cmd := exec.Command("fio", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fio %s (apt install fio): %v\n%s", strings.Join(args, " "), err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "trace"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 4 && f[len(f)-3] == "read" {
			list = append(list, f[len(f)-2]+" "+f[len(f)-1])
		}
	}
	return list
}

// Where a job works is where fio works: size= bounds the amount and not the place where filesize= is
// given, and strided zones lie over all of the file.
func TestRegionsAreFio(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for _, opts := range []string{
		"rw=randread filesize=4m size=64k",
		"rw=randread filesize=4m size=64k offset=1m",
		"rw=randread filesize=4m size=8m offset=1m",
		"rw=randread filesize=4m size=25%",
		"rw=read filesize=4m size=64k offset=1m",
		"rw=randread filesize=4m size=64k loops=2",
		"rw=randread filesize=4m size=3m loops=3",
		"rw=read size=4m io_size=3m loops=2",
		"rw=randread filesize=4m size=1m zonemode=strided zonesize=64k zonerange=256k",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k zoneskip=64k",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=128k zonerange=64k",
		"rw=randread filesize=4m size=1m zonemode=strided zonesize=64k zoneskip=192k",
		"rw=randread filesize=4m size=2m zonemode=strided zonesize=512k zonerange=256k",
		"rw=randread filesize=4m size=1m zonemode=strided zonesize=64k zonerange=256k norandommap",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k zonerange=256k zoneskip=64k offset=512k",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k zonerange=256k io_size=3m",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k zonerange=256k loops=2",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=60k zonerange=256k bs=16k",
		"rw=read filesize=4m size=1m zonemode=strided zonesize=64k zonerange=250k",
	} {
		t.Run(opts, func(t *testing.T) {
			t.Parallel()
			theirs := fioReads(t, opts)
			below, err := mem.Open(size)
			if err != nil {
				t.Fatal(err)
			}
			inner, _ := disk.As[disk.Driver](below)
			log := &traced{Driver: inner}
			d := disk.New(log, "traced")
			defer d.Close()
			r := runOn(t, func(context.Context, OpenRequest) (*disk.Disk, error) { return d, nil }, "[j]\nioengine=psync\nbs=4k\n"+strings.ReplaceAll(opts, " ", "\n"))
			if err := r.Failed(); err != nil {
				t.Fatal(err)
			}
			if len(theirs) < 16 {
				t.Fatalf("fio made only %d reads", len(theirs))
			}
			for i := range theirs {
				if ours := append(log.reads, "none"); i >= len(ours) || ours[i] != theirs[i] {
					t.Fatalf("read %d of %d is %q, fio's %q", i, len(theirs), ours[min(i, len(log.reads))], theirs[i])
				}
			}
			if len(log.reads) != len(theirs) {
				t.Errorf("%d reads, fio makes %d", len(log.reads), len(theirs))
			}
		})
	}
}

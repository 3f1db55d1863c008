package file

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

func TestProbeZero(t *testing.T) {
	t.Parallel()
	hostfs.RequireRoot(t)
	for kind, works := range map[hostfs.Kind]string{
		hostfs.Ext4: "punch_hole zero_range punch_hole+allocate write", hostfs.XFS: "punch_hole zero_range punch_hole+allocate write",
		hostfs.Tmpfs: "punch_hole punch_hole+allocate write", hostfs.Ext2: "punch_hole write",
	} {
		dir := hostfs.Mount(t, kind, hostfs.Options{})
		path := newFile(t, dir, 1000)
		for _, at := range []string{dir, path} {
			p, err := ProbeZero(bg, at)
			if err != nil {
				t.Fatal(err)
			}
			checkProbe(t, string(kind), p, works)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) > 2 { // and lost+found
			t.Errorf("%s: left in the directory: %v, %v", kind, names, err)
		}
	}
}

func checkProbe(t *testing.T, name string, p *ZeroProbe, works string) {
	t.Helper()
	var got []string
	for _, r := range p.Rungs {
		if r.Works {
			got = append(got, r.Rung)
		} else if r.Errno != "EOPNOTSUPP" {
			t.Errorf("%s: %s refused with %q", name, r.Rung, r.Errno)
		}
		if r.Works && r.Microseconds <= 0 && r.Rung != "blkdiscard" {
			t.Errorf("%s: %s took %v us", name, r.Rung, r.Microseconds)
		}
		if r.Allocated != nil && *r.Allocated != (r.Rung != "punch_hole") {
			t.Errorf("%s: after %s allocated: %v", name, r.Rung, *r.Allocated)
		}
	}
	if strings.Join(got, " ") != works {
		t.Errorf("%s: works %q, want %q", name, got, works)
	}
}

// TestProbeZeroKeepsDevice: data on a device outlives the probe; without a range
// of zeros nothing is tried.
func TestProbeZeroKeepsDevice(t *testing.T) {
	t.Parallel()
	dev := hostfs.Loop(t, hostfs.Options{Size: 3 * probeLen})
	fill := random(2*probeLen, 6)
	if err := os.WriteFile(dev, fill, 0); err != nil {
		t.Fatal(err)
	}
	p, err := ProbeZero(bg, dev)
	if err != nil {
		t.Fatal(err)
	}
	checkProbe(t, "loop", p, "punch_hole zero_range blkzeroout write blkdiscard")
	now, err := os.ReadFile(dev)
	if err != nil || !bytes.Equal(now[:2*probeLen], fill) || !bytes.Equal(now[2*probeLen:], make([]byte, probeLen)) {
		t.Errorf("the device's content changed (%v)", err)
	}
	full := random(3*probeLen, 7)
	if err := os.WriteFile(dev, full, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ProbeZero(bg, dev); err == nil || !strings.Contains(err.Error(), "without loss") {
		t.Errorf("a device full of data: %v", err)
	}
	if now, err := os.ReadFile(dev); err != nil || !bytes.Equal(now, full) {
		t.Errorf("the device's content changed (%v)", err)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	f := openFile(t, newFile(t, t.TempDir(), 1<<20), Options{Cache: None})
	f.modes[modeZeroRange].refused.Store(uint32(unix.EOPNOTSUPP))
	attrs, err := f.Inspect(bg)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for _, a := range attrs {
		got[a.Name] = a.Value
	}
	if got["cache"] != "none" || got["aio"] != "io_uring" || got["allocated"] != int64(0) || got["path"] != f.path {
		t.Errorf("%v", got)
	}
	if r, ok := got["refused"].([]string); !ok || len(r) != 1 || r[0] != "zero_range: EOPNOTSUPP" {
		t.Errorf("refused: %v", got["refused"])
	}
}

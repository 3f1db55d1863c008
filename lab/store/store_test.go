package store

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/lab/spec"
)

const mib = 1 << 20

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
	}
	code := m.Run()
	if binDir != "" {
		os.RemoveAll(binDir)
	}
	os.Exit(code)
}

var binDir string

// binary is the vmdisk program, built once.
var binary = sync.OnceValues(func() (string, error) {
	var err error
	if binDir, err = os.MkdirTemp("", "vmdisk-store-bin-"); err != nil {
		return "", err
	}
	return peer.Build(context.Background(), "./cmd/vmdisk", binDir)
})

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for loop devices and mounts: run `make test` as root or through sudo")
	}
}

func needProgram(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := findProgram(n); err != nil {
			t.Fatalf("%v: run scripts/peers.sh", err)
		}
	}
}

func vmdiskBinary(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// workDir is a short path, and is checked for leftovers.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmdisk-store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, what := range leftIn(t, dir) {
			t.Errorf("left behind: %s", what)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "lab")
}

// leftIn lists mounts, loop devices, processes and files of a folder.
func leftIn(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	found, err := mountsIn(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		left = append(left, "mount "+m.at)
	}
	for pattern, kind := range map[string]string{"/sys/block/loop*/loop/backing_file": "loop device", "/proc/[0-9]*/cmdline": "process"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			if text, err := os.ReadFile(n); err == nil && bytes.Contains(text, []byte(dir+"/")) {
				left = append(left, fmt.Sprintf("%s %s: %q", kind, n, text))
			}
		}
	}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			left = append(left, "file "+path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return left
}

// newStore opens one that is closed at the end of the test.
func newStore(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = workDir(t)
	}
	if o.Size == 0 {
		o.Size = 64 * mib
	}
	if o.FileSystem == "" {
		o.FileSystem = "none"
	}
	o.Log = logWriter{t}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// setup is the default one, changed.
func setup(change func(*spec.Setup)) spec.Setup {
	s := spec.Defaults()
	s.AIO = "threads"
	if change != nil {
		change(&s)
	}
	return s
}

// prepare makes the disks of host clients; the set is closed at the end of the test.
func prepare(t *testing.T, s *Store, su spec.Setup, client string, nodes int) *Set {
	t.Helper()
	if why := s.Missing(t.Context(), su, client, nodes, 0); len(why) > 0 {
		t.Fatalf("missing: %s", strings.Join(why, "; "))
	}
	set, err := s.Prepare(t.Context(), su, client, nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(context.Background()); err != nil {
			t.Errorf("close set: %v", err)
		}
	})
	if len(set.Disks) != nodes {
		t.Fatalf("%d disks for %d nodes", len(set.Disks), nodes)
	}
	return set
}

// open opens a disk as a host client does.
func open(t *testing.T, d Disk) *disk.Disk {
	t.Helper()
	if d.URL == "" {
		t.Fatalf("no URL for %+v", d.Source)
	}
	o := diskurl.Options{Filters: d.Filters, FileOptions: diskurl.FileOptions{Cache: d.Cache, AIO: d.AIO}}
	opened, err := diskurl.Open(t.Context(), d.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func closeDisk(t *testing.T, d *disk.Disk) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// sameAsGolden compares the first bytes of a disk with the golden one of here.
func sameAsGolden(t *testing.T, s *Store, d *disk.Disk) {
	t.Helper()
	golden := goldenDisk(t, s)
	defer closeDisk(t, golden)
	r, err := diskcopy.Compare(t.Context(), golden, d, diskcopy.CompareOptions{Length: s.o.Size})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal {
		t.Errorf("%s differs from the golden disk at offset %d", d, r.Offset)
	}
}

func goldenDisk(t *testing.T, s *Store) *disk.Disk {
	t.Helper()
	s.mu.Lock()
	path, err := s.goldenOn(t.Context(), here)
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	d, err := diskurl.Open(t.Context(), rawURL(path), diskurl.Options{ReadOnly: true, FileOptions: diskurl.FileOptions{ForceShare: true}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkIsolation writes to the first disk of two and looks at all others.
func checkIsolation(t *testing.T, s *Store, set *Set) {
	t.Helper()
	a := open(t, set.Disks[0])
	defer closeDisk(t, a)
	sameAsGolden(t, s, a)
	mark := bytes.Repeat([]byte("mark"), unit/4)
	for _, off := range []int64{0, 3 * mib, a.Size()/2 - unit, s.o.Size - unit} {
		if err := a.WriteAt(t.Context(), mark, off, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, unit)
	if err := a.ReadAt(t.Context(), got, 3*mib); err != nil || !bytes.Equal(got, mark) {
		t.Errorf("what was written to node a does not come back (%v)", err)
	}
	b := open(t, set.Disks[1])
	defer closeDisk(t, b)
	sameAsGolden(t, s, b)
}

package layout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

func job(write bool) *jobfile.Job {
	return &jobfile.Job{Mode: jobfile.Mode{Read: !write, Write: write}, AllowCreate: true, Fallocate: "native"}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var p Preparer
	for _, tt := range []struct {
		name  string
		write bool
	}{{"read", false}, {"write", true}} {
		name := filepath.Join(dir, tt.name)
		if err := p.Prepare(t.Context(), job(tt.write), name, 3<<20+5); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil || st.Size != 3<<20+5 {
			t.Errorf("%s: size %d, %v", tt.name, st.Size, err)
		}
		if !tt.write && st.Blocks*512 < 3<<20 {
			t.Errorf("a file to be read has holes: %d of %d bytes", st.Blocks*512, st.Size)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "read"))
	if err != nil || strings.Count(string(data), "\x00") > len(data)/20 {
		t.Errorf("a file to be read is mostly zeros (%v)", err)
	}
	// What is there already stays as it is.
	before := string(data[:4096])
	if err := p.Prepare(t.Context(), job(false), filepath.Join(dir, "read"), 4<<20); err != nil {
		t.Fatal(err)
	}
	if data, _ = os.ReadFile(filepath.Join(dir, "read")); string(data[:4096]) != before || len(data) != 4<<20 {
		t.Errorf("extending a file changed it (%d bytes)", len(data))
	}
	if err := p.Remove(filepath.Join(dir, "read")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "read")); err == nil {
		t.Error("unlink left the file")
	}
	if len(Devices(filepath.Join(dir, "none"))) > 8 {
		t.Error("too many devices below a file")
	}
}

func TestRemoveKeepsForeignFiles(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(name, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	var p Preparer
	if err := p.Prepare(t.Context(), job(true), name, 4); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); err != nil {
		t.Errorf("a file that was there before is gone: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var p Preparer
	for _, tt := range []struct {
		name string
		size int64
		j    *jobfile.Job
		want string
	}{
		{dir, 1, job(false), "is a directory"},
		{filepath.Join(dir, "none"), 0, job(false), "no size="},
		{filepath.Join(dir, "none"), 5, &jobfile.Job{Mode: jobfile.Mode{Read: true}}, "allow_file_create=0"},
		{filepath.Join("/dev/null", "such"), 5, job(true), "not a directory"},
	} {
		if err := p.Prepare(t.Context(), tt.j, tt.name, tt.size); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A file in a folder that is not there yet gets its folders, as in fio; one that must not be
// made gets none.
func TestFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var p Preparer
	name := filepath.Join(dir, "a", "b", "f")
	if err := p.Prepare(t.Context(), &jobfile.Job{AllowCreate: true, Mode: jobfile.Mode{Write: true}}, name, 8192); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(name); err != nil || st.Size() != 8192 {
		t.Errorf("%v, %v", st, err)
	}
	other := filepath.Join(dir, "c", "f")
	if err := p.Prepare(t.Context(), &jobfile.Job{Mode: jobfile.Mode{Write: true}}, other, 8192); err == nil {
		t.Error("a file was made although allow_file_create=0")
	}
	if _, err := os.Stat(filepath.Dir(other)); err == nil {
		t.Error("a folder was made for a file that must not be made")
	}
}

package diskurl_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/diskurl"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v (install qemu-utils)\n%s", args, err, out)
	}
}

// A backing file is opened beneath the directory that was allowed, if its format is
// written down, and by no way around that.
func TestReferences(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir, outside := filepath.Join(top, "in"), filepath.Join(top, "out")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "base"), bytes.Repeat([]byte{7}, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"away": "../out/base", "absolute": filepath.Join(outside, "base"), "near": "base"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("mkfifo", filepath.Join(dir, "fifo")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v %s", err, out)
	}
	over := func(name, backing, format string) string {
		path := filepath.Join(dir, name)
		args := []string{"create", "-q", "-u", "-f", "qcow2"}
		qemuImg(t, append(args, "-b", backing, "-F", format, path, "1M")...)
		return path
	}
	loopA, loopB := over("a", "b", "qcow2"), over("b", "a", "qcow2")
	for _, c := range []struct{ path, want string }{
		{over("relative", "base", "raw"), ""},
		{over("path", filepath.Join(dir, "base"), "raw"), ""},
		{over("link", "near", "raw"), ""},
		{over("second", "relative", "qcow2"), ""},
		{over("up", "../out/base", "raw"), "not beneath"},
		{over("elsewhere", filepath.Join(outside, "base"), "raw"), "not beneath"},
		{over("symlink", "away", "raw"), "cross-device"},
		{over("symlink2", "absolute", "raw"), "cross-device"},
		{over("pipe", "fifo", "raw"), "no regular file"},
		{over("folder", ".", "raw"), "no regular file"},
		{over("missing", "nothing", "raw"), "no such file"},
		{over("protocol", "nbd://localhost/", "raw"), "protocol"},
		{over("json", `json:{"driver":"null-co"}`, "raw"), "protocol"},
		{over("vmdk", "base", "vmdk"), `format "vmdk"`},
		{loopA, "loop"}, {loopB, "loop"}, {over("self", "self", "qcow2"), "loop"},
	} {
		o := diskurl.Options{Format: "qcow2", ReadOnly: true}
		if _, err := diskurl.Open(t.Context(), c.path, o); err == nil || !strings.Contains(err.Error(), "--backing allow=DIR") {
			t.Errorf("%s, nothing allowed: %v", c.path, err)
		}
		if err := o.References.Allow(dir); err != nil {
			t.Fatal(err)
		}
		d, err := diskurl.Open(t.Context(), c.path, o)
		if err != nil {
			if c.want == "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %v, want %q", c.path, err, c.want)
			}
			continue
		}
		p := make([]byte, 1<<20)
		if err := d.ReadAt(t.Context(), p, 0); err != nil || c.want != "" || p[0] != 7 || p[1<<20-1] != 7 {
			t.Errorf("%s: opened (want %q), reads %v %v", c.path, c.want, p[0], err)
		}
		d.Close()
	}
}

// An image that does not name the format of its backing file is not guessed at.
func TestReferencesNoFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "over")
	qemuImg(t, "create", "-q", "-f", "raw", filepath.Join(dir, "base"), "1M")
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "raw", path, "1M")
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(p, []byte{0xe2, 0x79, 0x2a, 0xca})
	copy(p[at:], "????") // an extension that nobody knows
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	o := diskurl.Options{Format: "qcow2", ReadOnly: true}
	if err := o.References.Allow(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := diskurl.Open(t.Context(), path, o); err == nil || !strings.Contains(err.Error(), "never guessed") {
		t.Errorf("got %v", err)
	}
}

// A chain has a bound.
func TestReferencesDeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, "i"+string(rune('0'+i/10))+string(rune('0'+i%10))) }
	qemuImg(t, "create", "-q", "-f", "qcow2", name(0), "1M")
	for i := 1; i <= 64; i++ {
		qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", name(i-1), "-F", "qcow2", name(i), "1M")
	}
	o := diskurl.Options{Format: "qcow2", ReadOnly: true}
	if err := o.References.Allow(dir); err != nil {
		t.Fatal(err)
	}
	d, err := diskurl.Open(t.Context(), name(63), o)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := diskurl.Open(t.Context(), name(64), o); err == nil || !strings.Contains(err.Error(), "more than 64 images") {
		t.Errorf("got %v", err)
	}
}

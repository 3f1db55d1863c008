package vm

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bzImage is the head of a kernel with that version.
func bzImage(version string) []byte {
	head := make([]byte, 0x1000)
	copy(head[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(head[0x20e:], 0x300)
	copy(head[0x500:], version+" (builder@example) #1 SMP")
	return head
}

// FuzzKernelVersion: a version becomes part of a path and of messages.
func FuzzKernelVersion(f *testing.F) {
	f.Add("6.1.0-56-cloud-amd64 (a@b) #1", uint16(0x300), uint16(0x1000))
	f.Add("../../etc x", uint16(0x300), uint16(0x1000))
	f.Add("\x1b[2J", uint16(0x300), uint16(0x506))
	f.Add("6.1", uint16(0x300), uint16(0x210))
	f.Add("6.1", uint16(0xffff), uint16(0x1000))
	// Not a whole head, which is long and mostly zeros: what would be changed in it are those.
	f.Fuzz(func(t *testing.T, text string, at, size uint16) {
		head := bzImage("")
		binary.LittleEndian.PutUint16(head[0x20e:], at)
		copy(head[0x500:], text)
		head = head[:min(int(size), len(head))]
		version, err := bzImageVersion(head)
		if err != nil {
			if version != "" {
				t.Errorf("%q beside %v", version, err)
			}
			return
		}
		if filepath.Base(version) != version || strings.HasPrefix(version, ".") {
			t.Errorf("version %q leads elsewhere", version)
		}
		for _, r := range version {
			if r <= ' ' || r > '~' {
				t.Errorf("version %q cannot be printed", version)
			}
		}
	})
}

func TestKernelVersion(t *testing.T) {
	t.Parallel()
	if v, err := bzImageVersion(bzImage("6.12.1+deb13~x_1")); err != nil || v != "6.12.1+deb13~x_1" {
		t.Errorf("%q, %v", v, err)
	}
	for _, c := range []struct {
		head []byte
		want string
	}{
		{nil, "not an x86 Linux kernel (bzImage)"},
		{bzImage("6.1")[:0x20f], "not an x86 Linux kernel (bzImage)"},
		{bzImage("6.1")[:0x500], "the boot header names no version"},
		{bzImage(""), "the boot header names no version"},
		{bzImage("../up"), "the boot header names no version"},
		{bzImage("6.1\n"), "the boot header names no version"},
	} {
		if v, err := bzImageVersion(c.head); err == nil || err.Error() != c.want {
			t.Errorf("%q, %v, want %q", v, err, c.want)
		}
	}
}

// TestOpenKernel: modules lie at the root of the system or beside the kernel.
func TestOpenKernel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "boot/vmlinuz"), bzImage("9.9.9-test"))
	_, err := findKernel(filepath.Join(dir, "boot/vmlinuz"))
	wantError(t, err, "has no modules: want /lib/modules/9.9.9-test/modules.dep")
	write(t, filepath.Join(dir, "lib/modules/9.9.9-test/modules.dep"), nil)
	k, err := findKernel(filepath.Join(dir, "boot/vmlinuz"))
	if err != nil || k.version != "9.9.9-test" || k.root != dir {
		t.Errorf("%+v, %v", k, err)
	}
	_, err = findKernel(filepath.Join(dir, "vmlinuz"))
	wantError(t, err, "vmlinuz does not exist: run: apt-get install linux-image-cloud-amd64, or set guest.kernel")
	write(t, filepath.Join(dir, "text"), []byte("no kernel"))
	_, err = findKernel(filepath.Join(dir, "text"))
	wantError(t, err, "not an x86 Linux kernel (bzImage)")
	_, err = findKernel(dir)
	wantError(t, err, "kernel "+dir+": ")
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	want := []string{"vmlinuz-5.10.0-9", "vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-56-amd64", "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.12.1"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantError wants one line with that text.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, want)
	}
}

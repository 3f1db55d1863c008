package server

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostileFolder makes the log's folder another user's, who has put name there.
func hostileFolder(t *testing.T, put func(name string) error) (name, victim string) {
	t.Helper()
	dir := t.TempDir()
	folder := filepath.Join(dir, "log")
	name, victim = filepath.Join(folder, "daemon.log"), filepath.Join(dir, "victim")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(victim, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(name); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(folder, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	return name, victim
}

// The user whom the log's folder belongs to must not make root write to, or give him,
// another file.
func TestLogFollowsNoLinks(t *testing.T) {
	for kind, put := range map[string]func(name string) error{
		"link":          func(name string) error { return os.Symlink("../victim", name) },
		"dangling link": func(name string) error { return os.Symlink("../new", name) },
		"hard link": func(name string) error {
			return os.Link(filepath.Join(filepath.Dir(filepath.Dir(name)), "victim"), name)
		},
		"FIFO":   func(name string) error { return unix.Mkfifo(name, 0o666) },
		"folder": func(name string) error { return os.Mkdir(name, 0o777) },
	} {
		name, victim := hostileFolder(t, put)
		if f, err := openLog(LogConfig{File: name}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", kind, err)
			if err == nil {
				f.Close()
			}
		}
		if got, _ := os.ReadFile(victim); string(got) != "root's" {
			t.Errorf("%s: the other file holds %q", kind, got)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(victim), "new")); err == nil {
			t.Errorf("%s: what the link names was made", kind)
		}
	}
}

// A link that comes while the daemon runs changes nothing: ownership goes to the file
// that is open, and rotation writes on to it where the new one cannot be trusted.
func TestLogLinkComesLater(t *testing.T) {
	name, victim := hostileFolder(t, func(string) error { return nil })
	f, err := openLog(LogConfig{File: name, MaxBytes: 10, BackupCount: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	swap := func() {
		t.Helper()
		if err := os.Rename(name, name+".kept"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	if os.Geteuid() == 0 {
		if err := f.giveTo(12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(victim, &st); err != nil || int(st.Uid) != os.Geteuid() {
		t.Errorf("the other file was given to %d (%v)", st.Uid, err)
	}
	if _, err := io.WriteString(f, "aaaaaaaa"); err != nil {
		t.Fatal(err)
	}
	// A folder that stands where the rotated file should go keeps the link in its place.
	if err := os.MkdirAll(name+".1/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "bbbbbbbb"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "root's" {
		t.Errorf("rotation wrote %q to the other file", got)
	}
	if got, _ := os.ReadFile(name + ".kept"); !strings.HasSuffix(string(got), "bbbbbbbb") {
		t.Errorf("the log holds %q", got)
	}
}

// In a folder of root's alone a link is root's wish, as /dev/stdout is.
func TestLogFollowsOwnLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("real.log", filepath.Join(dir, "daemon.log")); err != nil {
		t.Fatal(err)
	}
	f, err := openLog(LogConfig{File: filepath.Join(dir, "daemon.log")})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
}

// Nor is anything else given away by its name alone.
func TestGiveFollowsNoLinks(t *testing.T) {
	dir := t.TempDir()
	victim, link, hard := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "hard")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(victim, hard); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	for _, path := range []string{link, hard, victim} {
		if err := give(path, unix.S_IFSOCK, uid, gid); err == nil {
			t.Errorf("%s is taken for a socket", path)
		}
	}
	if err := give(link, unix.S_IFDIR, uid, gid); err == nil {
		t.Error("a link is taken for a folder")
	}
	if err := give(dir, unix.S_IFDIR, uid, gid); err != nil {
		t.Error(err)
	}
	if err := give(filepath.Join(dir, "none"), unix.S_IFSOCK, uid, gid); err != nil {
		t.Error(err)
	}
}

package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// TestMain is a process that restricts itself, when asked to be one.
func TestMain(m *testing.M) {
	dir := os.Getenv("CONFINE_TEST_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("CONFINE_TEST_OLD") != "" {
		abi = func() int { return 0 }
	}
	n := Needs{Remove: []string{dir}, Read: []string{filepath.Join(dir, "read"), "/nonexistent"}, Write: []string{filepath.Join(dir, "log")}}
	if err := Restrict(n); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // another thread than the one that asked for it
		tell(dir)
		close(done)
	}()
	<-done
	os.Exit(0)
}

// tell prints what is still allowed.
func tell(dir string) {
	said := func(what string, err error) {
		fmt.Printf("%s: %v\n", what, !errors.Is(err, os.ErrPermission))
	}
	open := func(name string, flag int) error {
		f, err := os.OpenFile(filepath.Join(dir, name), flag, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	said("read what is named", open("read", os.O_RDONLY))
	said("write what is named", open("read", os.O_WRONLY))
	said("read another", open("other", os.O_RDONLY))
	said("make a log", open("log/new", os.O_CREATE|os.O_WRONLY))
	said("rotate a log", os.Rename(filepath.Join(dir, "log/new"), filepath.Join(dir, "log/old")))
	said("make a file", open("new", os.O_CREATE|os.O_WRONLY))
	said("remove a file", os.Remove(filepath.Join(dir, "other")))
	said("make a folder", os.Mkdir(filepath.Join(dir, "folder"), 0o700))
	said("run a program", exec.Command("/bin/true").Run())
	fmt.Printf("capabilities: %v\n", cap.GetProc().String() == "=")
}

// TestRestrict: what is named stays, the rest goes, in all threads; without Landlock
// the capabilities go all the same.
func TestRestrict(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		if !old && !Available() {
			t.Log("this kernel has no Landlock")
			continue
		}
		dir := t.TempDir()
		for _, name := range []string{"read", "other"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(filepath.Join(dir, "log"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CONFINE_TEST_DIR="+dir)
		want := "read what is named: true\nwrite what is named: false\nread another: false\nmake a log: true\nrotate a log: true\nmake a file: false\nremove a file: true\nmake a folder: false\nrun a program: false\ncapabilities: true\n"
		if old {
			cmd.Env = append(cmd.Env, "CONFINE_TEST_OLD=1")
			want = strings.ReplaceAll(want, "false", "true")
		}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("without Landlock: %v: %v\n%s", old, err, out)
		}
	}
}

// TestSame: nothing is changed where nothing is to be dropped.
func TestSame(t *testing.T) {
	t.Parallel()
	some := cap.NewSet()
	if err := some.SetFlag(cap.Permitted, true, cap.CHOWN); err != nil {
		t.Fatal(err)
	}
	if !same(cap.NewSet(), cap.NewSet()) || same(some, cap.NewSet()) || !same(some, some) {
		t.Error("sets are taken for others")
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"root": "0 -1", "root:0": "0 0", ":root": "-1 0", "12345:54321": "12345 54321", "12345": "12345 -1", "4294967294": "4294967294 -1",
	} {
		uid, gid, err := LookupOwner(text)
		if got := fmt.Sprint(uid, gid); got != want || err != nil {
			t.Errorf("%q: %s (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":", "no-such-user", ":no-such-group", "-1", "4294967295", "0x0"} {
		if uid, gid, err := LookupOwner(text); err == nil {
			t.Errorf("%q is %d:%d", text, uid, gid)
		}
	}
}

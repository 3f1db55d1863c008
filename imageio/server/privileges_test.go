package server

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestDropPrivileges: another process becomes the configured user and group for good,
// and gives nothing away that a link in the run directory's place leads to.
func TestDropPrivileges(t *testing.T) {
	if dir := os.Getenv("DROP_TEST_DIR"); dir != "" {
		cfg := Config{Daemon: DaemonConfig{UserName: "nobody", GroupName: "daemon", DropPrivileges: true, RunDir: dir}}
		err := (&Server{cfg: &cfg}).DropPrivileges()
		fmt.Printf("%v %d %t\n", err == nil, os.Geteuid(), syscall.Setuid(0) == nil)
		os.Exit(0)
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root drops privileges")
	}
	run, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	outside := t.TempDir()
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{run: "true 65534 false\n", link: "false 0 true\n"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestDropPrivileges$")
		cmd.Env = append(os.Environ(), "DROP_TEST_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %q (%v), want %q", dir, out, err, want)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(run, &st); err != nil || st.Uid != 65534 || st.Gid != 1 {
		t.Errorf("the run directory belongs to %d:%d (%v)", st.Uid, st.Gid, err)
	}
	if err := syscall.Stat(outside, &st); err != nil || st.Uid != 0 {
		t.Errorf("what a link leads to belongs to %d (%v)", st.Uid, err)
	}
}

package main

import (
	"os"
	"os/exec"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// mountLoop is the script command `loopmount FILE DIR`: an ext4 file system in a
// new file, mounted through a loop device whose name is put in $LOOPDEV, until the
// script ends.
func mountLoop(ts *testscript.TestScript, _ bool, args []string) {
	file, dir := ts.MkAbs(args[0]), ts.MkAbs(args[1])
	run := func(name string, a ...string) string {
		out, err := exec.Command(name, a...).CombinedOutput()
		if err != nil {
			ts.Fatalf("%s %s: %v\n%s", name, strings.Join(a, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	f, err := os.Create(file)
	ts.Check(err)
	ts.Check(f.Truncate(16 << 20))
	ts.Check(f.Close())
	ts.Check(os.Mkdir(dir, 0o755))
	run("mkfs.ext4", "-q", file)
	dev := run("losetup", "--find", "--show", file)
	ts.Defer(func() { run("losetup", "--detach", dev) })
	run("mount", dev, dir)
	ts.Defer(func() { run("umount", dir) })
	ts.Setenv("LOOPDEV", dev)
}

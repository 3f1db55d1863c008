// The first program of a guest that loads its modules, as the agent does, and takes
// its kernel down.
package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func main() {
	if err := os.MkdirAll("/proc", 0o755); err != nil {
		println("panic:", err.Error())
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		println("panic: mount /proc:", err.Error())
	}
	files, _ := filepath.Glob("/modules/*.ko")
	for _, file := range files {
		load(file)
	}
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
		println("panic: sysrq:", err.Error())
	}
}

func load(file string) {
	f, err := os.Open(file)
	if err != nil {
		println("panic:", err.Error())
		return
	}
	defer f.Close()
	_ = unix.FinitModule(int(f.Fd()), "", 0) // drivers of hardware that is not there fail
}

package uring

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Probe says why io_uring cannot be used here, or nil. The answer is found once
// per process.
func Probe() error { return probeOnce() }

var probeOnce = sync.OnceValue(func() error {
	r, err := New(1)
	if err != nil {
		return err
	}
	r.Close()
	return nil
})

// explain turns the errno of io_uring_setup into what to do about it.
func explain(errno unix.Errno) error {
	switch errno {
	case unix.ENOSYS:
		return fmt.Errorf("io_uring: the kernel has none, or a seccomp filter hides it: %w", errno)
	case unix.EPERM:
		return fmt.Errorf("io_uring: forbidden (%s): %w", whyForbidden(), errno)
	case unix.ENOMEM:
		return fmt.Errorf("io_uring: no memory for the ring (raise RLIMIT_MEMLOCK): %w", errno)
	case unix.EMFILE, unix.ENFILE:
		return fmt.Errorf("io_uring: no file descriptor left (raise RLIMIT_NOFILE): %w", errno)
	}
	return fmt.Errorf("io_uring: setup: %w", errno)
}

func whyForbidden() string {
	const name = "/proc/sys/kernel/io_uring_disabled"
	b, err := os.ReadFile(name)
	switch strings.TrimSpace(string(b)) {
	case "1":
		return "sysctl kernel.io_uring_disabled is 1: allowed only with CAP_SYS_ADMIN or to the group kernel.io_uring_group"
	case "2":
		return "sysctl kernel.io_uring_disabled is 2: set it to 0"
	}
	if err != nil {
		return "by a seccomp filter or security module"
	}
	return "by a seccomp filter or security module; sysctl kernel.io_uring_disabled allows it"
}

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// command is a program to run to its end.
type command struct {
	name string
	args []string
	env  []string // added to the environment
	// kill: a server that does not heed SIGTERM, and has nothing to finish.
	kill bool
}

func (c command) String() string { return strings.Join(append([]string{c.name}, c.args...), " ") }

// runner runs a command and returns its standard output.
type runner func(ctx context.Context, c command) (string, error)

// commandError is a command that failed.
type commandError struct {
	command command
	err     error
	stderr  string
}

func (e *commandError) Error() string {
	if e.stderr == "" {
		return fmt.Sprintf("%s: %v", e.command, e.err)
	}
	return fmt.Sprintf("%s: %s", e.command, lastLine(e.stderr))
}

func (e *commandError) Unwrap() error { return e.err }

// lastLine is what most programs end with: the reason.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// findProgram is exec.LookPath that also knows the administrator's folders, which
// sudo and some CI systems leave out of PATH.
func findProgram(name string) (string, error) {
	if strings.Contains(name, "/") {
		return exec.LookPath(name)
	}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// runCommand is the real runner. The program dies with us: a qemu-img left over
// would go on filling the disk.
func runCommand(ctx context.Context, c command) (string, error) {
	path, err := findProgram(c.name)
	if err != nil {
		return "", err
	}
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, path, c.args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Env = append(cmd.Env, c.env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = childAttr()
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 5 * time.Second
	// The death signal comes when the thread that forked ends, not the process.
	runtime.LockOSThread()
	err = cmd.Run()
	runtime.UnlockOSThread()
	if ctxErr := ctx.Err(); ctxErr != nil && err != nil {
		err, stderr = context.Cause(ctx), strings.Builder{}
	}
	if err != nil {
		return stdout.String(), &commandError{command: c, err: noSpace(stderr.String(), err), stderr: stderr.String()}
	}
	return stdout.String(), nil
}

// noSpace keeps the kind of the most likely failure, which a program only prints.
func noSpace(stderr string, err error) error {
	if strings.Contains(stderr, syscall.ENOSPC.Error()) || strings.Contains(stderr, "No space left on device") {
		return errors.Join(err, syscall.ENOSPC)
	}
	return err
}

func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// killGroup kills a process that leads its group, with what it started.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"github.com/vmdisk/vmdisk/internal/confine"
)

// runCommand is the command of --run. It starts before the server restricts itself,
// which would restrict the command as well.
type runCommand struct {
	cmd  *exec.Cmd
	stop context.CancelFunc
}

// startCommand starts a shell command with $uri set, as a if that is not nil.
func startCommand(command, uri string, a *confine.Account) (*runCommand, error) {
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), "uri="+uri)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = drainTime
	if a != nil {
		groups := make([]uint32, len(a.Groups))
		for i, g := range a.Groups {
			groups[i] = uint32(g)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID), Groups: groups}}
	}
	if err := cmd.Start(); err != nil {
		stop()
		return nil, err
	}
	return &runCommand{cmd, stop}, nil
}

// wait passes the exit status on. The command gets a SIGTERM when ctx ends.
func (r *runCommand) wait(ctx context.Context) error {
	defer r.stop()
	defer context.AfterFunc(ctx, r.stop)()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return &statusError{status: 128 + int(s.Signal())}
	}
	return &statusError{status: exit.ExitCode()}
}

// end stops a command that is not waited for.
func (r *runCommand) end() {
	if r != nil {
		r.stop()
		_ = r.cmd.Wait()
	}
}

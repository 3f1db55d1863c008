// Package child runs programs that must not outlive this one.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is a program that runs in the background, in a process group of its own.
// The kernel kills it when this process ends, however that is. Safe for concurrent
// use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts cmd, on the given CPUs if cpus is not nil, and waits for its end in the
// background; WaitDelay and the streams are the caller's to set.
//
// The death signal comes when the thread that forked ends, not the process, and Go ends
// threads; so one thread is kept for it as long as it runs. The affinity is that
// thread's, inherited; a thread that was pinned is not used again.
func Start(cmd *exec.Cmd, cpus *unix.CPUSet) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() { // ends with the process
		runtime.LockOSThread()
		if cpus == nil {
			defer runtime.UnlockOSThread()
		} else if err := unix.SchedSetaffinity(0, cpus); err != nil {
			started <- fmt.Errorf("choose the CPUs: %w", err)
			return
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID is the process's number, until Done that of no other process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Err is how the process ended, as exec.Cmd.Wait tells it; nil before it did.
func (p *Process) Err() error {
	if !p.Ended() {
		return nil
	}
	return p.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// KillGroup kills the process and what it started, but does not wait for it.
func (p *Process) KillGroup() error {
	if err := syscall.Kill(-p.PID(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// Tail keeps the last bytes that were written to it. The zero value is ready. Safe for
// concurrent use.
type Tail struct {
	mu  sync.Mutex
	buf []byte
}

// tailBytes is how much a Tail keeps.
const tailBytes = 64 << 10

// Write implements io.Writer; it never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String is what is kept.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/child"
)

// stopGrace is how long a process has to end after SIGTERM before it is killed.
const stopGrace = 15 * time.Second

// Proc is a child process that runs in the background. It dies with its parent.
type Proc struct {
	Name string

	child   *child.Process
	stderr  *child.Tail
	printed atomic.Int64
}

// Start runs a program in the background. env is added to the environment,
// files become descriptors 3, 4, ...
func Start(name string, argv []string, env []string, files ...*os.File) (*Proc, error) {
	p := &Proc{Name: name, stderr: new(child.Tail)}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout = io.MultiWriter(p.stderr, counter{&p.printed})
	cmd.Stderr = cmd.Stdout
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = files
	var err error
	if p.child, err = child.Start(cmd, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// PID of the process.
func (p *Proc) PID() int { return p.child.PID() }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.child.Done() }

// Stderr is the end of what the process has written to stdout and stderr.
func (p *Proc) Stderr() string { return strings.TrimSpace(p.stderr.String()) }

// Printed is how many bytes the process has written to stdout and stderr.
func (p *Proc) Printed() int64 { return p.printed.Load() }

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// Signal sends a signal to the process.
func (p *Proc) Signal(sig os.Signal) error { return p.child.Signal(sig) }

// Kill ends the process with SIGKILL, as a crash would, and waits for it.
func (p *Proc) Kill() {
	_ = p.child.Signal(syscall.SIGKILL)
	<-p.child.Done()
}

// Stop ends the process with SIGTERM and waits for it. It is an error if the
// process had to be killed or ended with a failure other than that signal.
func (p *Proc) Stop() error {
	_ = p.child.Signal(syscall.SIGTERM)
	select {
	case <-p.child.Done():
	case <-time.After(stopGrace):
		p.Kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM: %s", p.Name, stopGrace, p.Stderr())
	}
	return p.exitError()
}

// Wait waits until the process ends by itself and returns its failure.
func (p *Proc) Wait() error {
	<-p.child.Done()
	if p.child.Err() != nil {
		return fmt.Errorf("%s: %w: %s", p.Name, p.child.Err(), p.Stderr())
	}
	return nil
}

func (p *Proc) exitError() error {
	var exit *exec.ExitError
	if errors.As(p.child.Err(), &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGTERM {
			return nil
		}
	}
	if p.child.Err() != nil {
		return fmt.Errorf("%s: %w: %s", p.Name, p.child.Err(), p.Stderr())
	}
	return nil
}

// CPU is the processor time of the process; see [CPU].
func (p *Proc) CPU() (time.Duration, error) {
	used, err := CPU(p.PID())
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.Name, err)
	}
	return used, nil
}

// CPU is the processor time (user and system) that all threads of a process have
// used, those that have ended included, in nanosecond resolution.
func CPU(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED of a whole process, see clock_getcpuclockid(3)
	var ts unix.Timespec
	clock := int32(^uint32(pid)<<3 | schedClock)
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory returns the resident set of the process in bytes, now and at its peak.
func (p *Proc) Memory() (now, peak int64, err error) {
	status, err := os.ReadFile(p.procfile("status"))
	if err != nil {
		return 0, 0, fmt.Errorf("memory of %s: %w", p.Name, err)
	}
	return statusKiB(status, "VmRSS:"), statusKiB(status, "VmHWM:"), nil
}

// ResetPeak makes the present resident set the peak.
func (p *Proc) ResetPeak() error {
	return os.WriteFile(p.procfile("clear_refs"), []byte("5"), 0)
}

func (p *Proc) procfile(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.PID()), name)
}

func statusKiB(status []byte, field string) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	return 0
}

// Result is what one program that ran to its end did and used.
type Result struct {
	Stdout, Stderr string
	Wall           time.Duration
	User, Sys      time.Duration // with the children it waited for
	MaxRSS         int64         // bytes
	Code           int           // exit status
}

// CPU is user and system time together.
func (r Result) CPU() time.Duration { return r.User + r.Sys }

// Run runs a program to its end. A non-zero exit status is an error whose text
// has the end of stderr; the Result is valid then too.
func Run(ctx context.Context, argv ...string) (Result, error) {
	return RunInput(ctx, nil, argv...)
}

// RunInput is Run with stdin.
func RunInput(ctx context.Context, stdin []byte, argv ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// A program that forks (fio) is ended as a whole.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Wall: time.Since(start), Code: -1}
	if ps := cmd.ProcessState; ps != nil {
		r.User, r.Sys, r.Code = ps.UserTime(), ps.SystemTime(), ps.ExitCode()
		if ru, ok := ps.SysUsage().(*syscall.Rusage); ok {
			r.MaxRSS = ru.Maxrss << 10
		}
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(lastBytes(r.Stderr, 2000)))
	}
	return r, nil
}

func lastBytes(s string, n int) string { return s[max(0, len(s)-n):] }

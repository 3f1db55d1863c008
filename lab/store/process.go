package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Times that a server may take; a machine may be busy with several guests.
const (
	startTime = time.Minute
	stopTime  = 10 * time.Second
)

// process is a server, a child that ends when we do.
type process struct {
	name    string // "server a"
	kill    bool   // it does not heed SIGTERM
	cmd     *exec.Cmd
	stderr  tail
	ended   chan struct{} // closed when it has been waited for
	err     error         // of Wait; valid after ended
	told    bool          // await has said that it ended
	once    sync.Once
	stopErr error
}

// startProcess runs a program in the background. The goroutine that waits for it
// keeps the thread that forked: the death signal is tied to that thread.
func startProcess(name string, c command) (*process, error) {
	path, err := findProgram(c.name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, cmd: exec.Command(path, c.args...), kill: c.kill, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = io.Discard, &p.stderr
	p.cmd.Env = append(p.cmd.Environ(), c.env...)
	p.cmd.Dir = "/"
	p.cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process, in order at first. It is an error if it had ended by
// itself before.
func (p *process) stop() error {
	p.once.Do(func() { p.stopErr = p.end() })
	return p.stopErr
}

func (p *process) end() error {
	select {
	case <-p.ended:
		if p.told {
			return nil
		}
		return fmt.Errorf("%s (%s) ended by itself: %w", p.name, p.cmd.Args[0], p.failure())
	default:
	}
	sig := syscall.SIGTERM
	if p.kill {
		sig = syscall.SIGKILL
	}
	_ = p.cmd.Process.Signal(sig)
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	err := killGroup(p.pid()) // not waited for yet, so the number is still its
	<-p.ended
	return err
}

// failure says how the process ended.
func (p *process) failure() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	if text := p.stderr.String(); text != "" {
		return fmt.Errorf("%w: %s", noSpace(text, err), lastLine(text))
	}
	return err
}

// await waits until the process listens on a unix socket. It does not connect: a
// vhost-user back end takes the first connection for its only client.
func (p *process) await(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.ended:
			p.told = true
			return fmt.Errorf("%s (%s): %w", p.name, p.cmd.Args[0], p.failure())
		case <-ctx.Done():
			return fmt.Errorf("%s (%s) does not listen on %s: %w: %s", p.name, p.cmd.Args[0], socket, ctx.Err(), lastLine(p.stderr.String()))
		case <-tick.C:
		}
		if ok, err := listening(socket); err != nil || ok {
			return err
		}
	}
}

// listening reports whether somebody accepts connections on a unix socket. The
// table is read here by suffix, as a path may hold spaces.
func listening(socket string) (bool, error) {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false, fmt.Errorf("find the listener of %s: %w", socket, err)
	}
	const flagsField, accepts = 3, "00010000" // __SO_ACCEPTCON
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if strings.HasSuffix(line, " "+socket+"\n") && len(f) > flagsField && f[flagsField] == accepts {
			return true, nil
		}
	}
	return false, nil
}

// startTicks is when a process started, in clock ticks since the host did; with the
// id it names a process for good.
func startTicks(pid int) (uint64, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	st, err := p.Stat()
	if err != nil {
		return 0, err
	}
	return st.Starttime, nil
}

// tail keeps the end of what a process prints. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if len(t.text) > maxTail {
		t.text = append(t.text[:0], t.text[len(t.text)-maxTail:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

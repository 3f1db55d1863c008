package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"github.com/vmdisk/vmdisk/child"
)

// Times that a server may take; a machine may be busy with several guests.
const (
	startTime = time.Minute
	stopTime  = 10 * time.Second
)

// process is a server, a child that ends when we do.
type process struct {
	*child.Process
	name    string // "server a"
	program string
	kill    bool // it does not heed SIGTERM
	stderr  *child.Tail
	told    bool // await has said that it ended
	once    sync.Once
	stopErr error
}

// startProcess runs a program in the background.
func startProcess(name string, c command) (*process, error) {
	path, err := findProgram(c.name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, program: c.name, kill: c.kill, stderr: new(child.Tail)}
	cmd := exec.Command(path, c.args...)
	cmd.Stdout, cmd.Stderr = io.Discard, p.stderr
	cmd.Env = append(cmd.Environ(), c.env...)
	cmd.Dir = "/"
	if p.Process, err = child.Start(cmd, nil); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// stop ends the process, in order at first. It is an error if it had ended by
// itself before.
func (p *process) stop() error {
	p.once.Do(func() { p.stopErr = p.end() })
	return p.stopErr
}

func (p *process) end() error {
	select {
	case <-p.Done():
		if p.told {
			return nil
		}
		return fmt.Errorf("%s (%s) ended by itself: %w", p.name, p.program, p.failure())
	default:
	}
	sig := syscall.SIGTERM
	if p.kill {
		sig = syscall.SIGKILL
	}
	_ = p.Signal(sig)
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.Done():
		return nil
	case <-timer.C:
	}
	err := p.KillGroup() // not waited for yet, so the number is still its
	<-p.Done()
	return err
}

// failure says how the process ended.
func (p *process) failure() error {
	err := p.Err()
	if err == nil {
		err = errors.New("exit status 0")
	}
	if text := strings.TrimSpace(p.stderr.String()); text != "" {
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
		case <-p.Done():
			p.told = true
			return fmt.Errorf("%s (%s): %w", p.name, p.program, p.failure())
		case <-ctx.Done():
			return fmt.Errorf("%s (%s) does not listen on %s: %w: %s", p.name, p.program, socket, ctx.Err(), lastLine(p.stderr.String()))
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

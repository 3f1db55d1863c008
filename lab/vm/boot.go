package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// Names of the sockets in Config.Dir.
const (
	monitorName   = "qmp.sock"
	agentName     = "agent.sock"
	consoleSocket = "console.sock"
)

// maxSocket is the longest path of a unix socket, unix(7), less the zero.
const maxSocket = 107

// Default times for a guest to open the agent's port: four emulated ones on a busy
// host of two CPUs took 20 s.
const (
	timeoutKVM = time.Minute
	timeoutTCG = 3 * time.Minute
)

// VM is a running guest. Its methods are safe for concurrent use.
type VM struct {
	dir     string
	process *process
	monitor *monitor
	serial  net.Conn // the virtio-serial port
	console *console
	agent   io.ReadWriteCloser // that, or a vsock

	mu     sync.Mutex
	events []Event
	ending ending
	opened chan struct{} // closed when the guest has opened the agent's port
	exited chan struct{} // closed when QEMU has ended and all it said was read
	once   sync.Once
	closed sync.Once
	err    error // of Close
}

// newVM is a guest that is not started.
func newVM(dir string) *VM {
	return &VM{dir: dir, console: newConsole(), opened: make(chan struct{}), exited: make(chan struct{})}
}

// Boot starts a guest and returns when something in it has opened the agent's
// port, or has connected by vsock. When ctx ends before that, the guest does too;
// afterwards it lives until Close. An error has what QEMU or the guest's console said.
func Boot(ctx context.Context, c Config) (*VM, error) {
	return withFreeCID(func() (*VM, error) { return boot(ctx, c) })
}

func boot(ctx context.Context, c Config) (_ *VM, err error) {
	var came acceptor
	if l, err := c.addVsock(ctx); err != nil {
		return nil, err
	} else if l != nil {
		defer l.Close()
		came = l
	}
	words, err := c.ready()
	if err != nil {
		return nil, err
	}
	timeout := c.timeout()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("it did not open the agent's port in %v", timeout))
	defer cancel()
	v := newVM(c.Dir)
	defer func() {
		if err != nil {
			err = v.failed(c.Name, err)
		}
	}()
	err = v.start(ctx, c, words)
	if err == nil {
		err = v.monitor.execute(ctx, "cont", nil, nil)
	}
	if err != nil {
		return nil, v.explained(err)
	}
	if err := v.reached(ctx, c, came); err != nil {
		return nil, err
	}
	return v, nil
}

func (c Config) timeout() time.Duration {
	switch {
	case c.Timeout != 0:
		return c.Timeout
	case c.Accel == AccelKVM:
		return timeoutKVM
	}
	return timeoutTCG
}

// lastWords is how long a QEMU that hung up gets to end: it connects to its
// monitor before it looks at all of its options.
const lastWords = 2 * time.Second

// explained turns a connection that broke because QEMU ended into what QEMU said.
func (v *VM) explained(err error) error {
	if v.process == nil || !errors.Is(err, errHungUp) {
		return err
	}
	select {
	case <-v.exited:
		return errors.New(v.Ending())
	case <-time.After(lastWords):
		return err
	}
}

// ready checks the configuration and makes what the guest boots.
func (c Config) ready() ([]string, error) {
	words, err := Argv(c)
	if err != nil {
		return nil, err
	}
	if path := filepath.Join(c.Dir, consoleSocket); len(path) > maxSocket {
		return nil, fmt.Errorf("guest %s: the path of its socket %s has %d bytes, %d are possible: use a shorter folder", c.Name, path, len(path), maxSocket)
	}
	if c.Kit == nil {
		return words, nil
	}
	return words, c.Kit.prepare(c)
}

// start runs QEMU and connects its monitor and the agent's port.
func (v *VM) start(ctx context.Context, c Config, words []string) error {
	forMonitor, err := listen(ctx, filepath.Join(c.Dir, monitorName))
	if err != nil {
		return err
	}
	defer forMonitor.Close()
	forAgent, err := listen(ctx, filepath.Join(c.Dir, agentName))
	if err != nil {
		return err
	}
	defer forAgent.Close()
	forConsole, err := listen(ctx, filepath.Join(c.Dir, consoleSocket))
	if err != nil {
		return err
	}
	defer forConsole.Close()
	cpus, err := theHost.nodeCPUs(c.Setup.NUMA)
	if err != nil {
		return err
	}
	if v.process, err = start(words, c.Dir, cpus); err != nil {
		return err
	}
	conn, err := v.accept(ctx, forMonitor)
	if err == nil {
		v.monitor, err = newMonitor(ctx, conn, v.event)
	}
	if err == nil {
		if conn, err = v.accept(ctx, forConsole); err == nil {
			v.console.keep(conn)
		}
	}
	go v.watch() // ends with QEMU, which Close sees to
	if err != nil {
		return err
	}
	v.serial, err = v.accept(ctx, forAgent)
	return err
}

func listen(ctx context.Context, path string) (net.Listener, error) {
	l, err := unixsock.Listen(path, unixsock.Options{Mode: new(fs.FileMode(0o600))})
	if err != nil {
		return nil, fmt.Errorf("socket for QEMU: %w", err)
	}
	return l, nil
}

// accept waits for QEMU to connect, unless it ends before.
func (v *VM) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	type accepted struct {
		conn net.Conn
		err  error
	}
	got := make(chan accepted, 1)
	go func() { // ends at the latest when the listener is closed below
		c, err := l.Accept()
		got <- accepted{c, err}
	}()
	select {
	case a := <-got:
		return a.conn, a.err
	case <-v.process.Done():
	case <-ctx.Done():
	}
	_ = l.Close()
	if a := <-got; a.conn != nil {
		_ = a.conn.Close()
	}
	return nil, v.why(ctx)
}

// wait waits for one of two channels, which may be nil, unless the guest ends before.
func (v *VM) wait(ctx context.Context, one, other <-chan struct{}) error {
	select {
	case <-one:
		return nil
	case <-other:
		return nil
	case <-v.process.Done():
	case <-ctx.Done():
	}
	return v.why(ctx)
}

func (v *VM) why(ctx context.Context) error {
	if v.process.Ended() {
		if v.monitor != nil {
			<-v.exited
		}
		return errors.New(v.Ending())
	}
	return context.Cause(ctx)
}

// failed ends a guest that did not boot, and adds what its console said.
func (v *VM) failed(name string, err error) error {
	console := v.Console()
	if cidTaken(err.Error()) {
		err = fmt.Errorf("%w: %w", errCIDTaken, err)
	}
	err = errors.Join(err, v.Close())
	if console == "" {
		return fmt.Errorf("guest %s: %w", name, err)
	}
	return fmt.Errorf("guest %s: %w; its console: %s", name, err, telling(console))
}

// Agent is the host's end of the channel to the agent.
func (v *VM) Agent() io.ReadWriteCloser { return v.agent }

// PID is QEMU's process.
func (v *VM) PID() int { return v.process.PID() }

// Console is the end of what the guest's kernel printed.
func (v *VM) Console() string { return v.console.String() }

// Exited is closed when QEMU has ended. Events and Ending are complete then.
func (v *VM) Exited() <-chan struct{} { return v.exited }

// QMP runs a command of QEMU's monitor; args and reply may be nil.
func (v *VM) QMP(ctx context.Context, command string, args, reply any) error {
	return v.monitor.execute(ctx, command, args, reply)
}

// Exits is how often the guest has left its CPUs so far; false where it can't be
// known: without KVM, or by a QEMU before 7.1.
func (v *VM) Exits(ctx context.Context) (uint64, bool) {
	var got []struct {
		Stats []struct {
			Name  string          `json:"name"`
			Value json.RawMessage `json:"value"`
		} `json:"stats"`
	}
	args := map[string]any{"target": "vcpu", "providers": []any{map[string]any{"provider": "kvm", "names": []string{"exits"}}}}
	if err := v.QMP(ctx, "query-stats", args, &got); err != nil {
		return 0, false
	}
	var sum uint64
	known := false
	for _, cpu := range got {
		for _, s := range cpu.Stats {
			var n uint64
			if s.Name == "exits" && json.Unmarshal(s.Value, &n) == nil {
				sum, known = sum+n, true
			}
		}
	}
	return sum, known
}

// quitTime is what QEMU gets to end by itself: it flushes its disks.
const quitTime = 5 * time.Second

// Close ends the guest and removes its sockets. It may be called again.
func (v *VM) Close() error {
	v.closed.Do(func() { v.err = v.close() })
	return v.err
}

func (v *VM) close() error {
	defer v.console.close()
	for _, c := range []io.Closer{v.agent, v.serial} {
		if c != nil {
			_ = c.Close()
		}
	}
	if v.monitor != nil {
		ctx, cancel := context.WithTimeout(context.Background(), quitTime)
		_ = v.monitor.execute(ctx, "quit", nil, nil) // a QEMU that doesn't is killed
		select {
		case <-v.process.Done():
		case <-ctx.Done():
		}
		cancel()
		v.monitor.close()
	}
	var errs []error
	if v.process != nil && !v.process.Ended() {
		errs = append(errs, v.process.kill())
	}
	if v.process != nil && v.process.Ended() {
		<-v.exited
	}
	for _, name := range []string{monitorName, agentName, consoleSocket} {
		if err := os.Remove(filepath.Join(v.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

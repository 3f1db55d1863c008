package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/gate"
	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/lab/store"
	"github.com/vmdisk/vmdisk/lab/vm"
)

// consoleError is a failure with the end of the console of the guest it befell.
type consoleError struct {
	err     error
	console string
}

func (e *consoleError) Error() string { return e.err.Error() }
func (e *consoleError) Unwrap() error { return e.err }

// node is one client of a cell: a guest or a process of the host.
type node struct {
	name  string
	disk  store.Disk
	guest *vm.VM            // or
	host  *agent.HostClient // this
	conn  *agent.Conn
}

// run measures a cell once: disks, nodes, preparation, load.
func (m *matrix) run(ctx context.Context, j job) (run *outcome.Run, err error) {
	m.step("make %d disks", j.cell.Nodes)
	set, err := m.store.Prepare(ctx, j.cell.Setup, j.cell.Client, j.cell.Nodes)
	if err != nil {
		return nil, fmt.Errorf("disks: %w", err)
	}
	// What was made is undone also when the context has ended.
	clean := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, set.Close(clean)) }()
	dir, err := os.MkdirTemp("", "vmlab")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	what := "boot %d guests"
	if j.cell.Client == spec.ClientHost {
		what = "start %d processes"
	}
	m.step(what, j.cell.Nodes)
	nodes, err := m.start(ctx, j.cell, set, dir)
	defer func() { err = errors.Join(err, closeAll(nodes)) }()
	if err != nil {
		return nil, err
	}
	run, err = m.measure(ctx, j.cell, nodes)
	return run, withConsole(nodes, err)
}

// start brings all nodes up at the same time.
func (m *matrix) start(ctx context.Context, c spec.Cell, set *store.Set, dir string) ([]*node, error) {
	nodes := make([]*node, len(set.Disks))
	for i, d := range set.Disks {
		nodes[i] = &node{name: spec.NodeName(i), disk: d}
	}
	err := together(nodes, func(n *node) error {
		own := filepath.Join(dir, n.name)
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		if c.Client == spec.ClientHost {
			return m.startHost(ctx, n, own)
		}
		return m.startGuest(ctx, c, n, own)
	})
	return nodes, err
}

func (m *matrix) startHost(ctx context.Context, n *node, dir string) (err error) {
	if n.host, err = agent.StartHost(ctx, m.o.Vmdisk, dir, n.name); err != nil {
		return err
	}
	n.conn = n.host.Conn()
	_, err = n.conn.Hello(ctx)
	return err
}

func (m *matrix) startGuest(ctx context.Context, c spec.Cell, n *node, dir string) (err error) {
	n.guest, err = vm.Boot(ctx, vm.Config{
		Name: n.name, Dir: dir, Guest: m.spec.Guest, Setup: c.Setup, Disk: n.disk.Source,
		Accel: m.accel, Kit: m.kit, FileSystem: c.FileSystem,
	})
	if err != nil {
		return err
	}
	n.conn = agent.NewConn(n.guest.Agent())
	if _, err = n.conn.Hello(ctx); err != nil {
		return n.explained(err)
	}
	return nil
}

// lastWords is how long QEMU may take to end after its guest's channel has.
const lastWords = 2 * time.Second

// explained adds to the failure of a guest how it ended, if it did, and its console.
func (n *node) explained(err error) error {
	if errors.Is(err, agent.ErrChannel) {
		select {
		case <-n.guest.Exited():
		case <-time.After(lastWords):
		}
	}
	if how := n.guest.Ending(); how != "" {
		err = fmt.Errorf("%w: %s", err, how)
	}
	return &consoleError{err, n.guest.Console()}
}

// together calls f for all nodes at once and waits for all of them.
func together(nodes []*node, f func(*node) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, n := range nodes {
		wg.Go(func() {
			if err := f(n); err != nil {
				errs[i] = &gate.NodeError{Node: n.name, Err: err}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // the first; those of the others mostly follow from it
		}
	}
	return nil
}

// withConsole adds the console of the guest that an error is about.
func withConsole(nodes []*node, err error) error {
	var at *gate.NodeError
	if !errors.As(err, &at) {
		return err
	}
	for _, n := range nodes {
		if n.name == at.Node && n.guest != nil {
			return n.explained(err)
		}
	}
	return err
}

// closeAll ends the nodes, all at once.
func closeAll(nodes []*node) error {
	return together(nodes, func(n *node) error {
		var errs []error
		if n.conn != nil {
			errs = append(errs, n.conn.Close())
		}
		if n.guest != nil {
			errs = append(errs, n.guest.Close())
		}
		if n.host != nil {
			errs = append(errs, n.host.Close())
		}
		return errors.Join(errs...)
	})
}

// measure prepares the disks in the nodes and puts the load on all of them.
func (m *matrix) measure(ctx context.Context, c spec.Cell, nodes []*node) (*outcome.Run, error) {
	w := m.spec.Workload(c.Workload)
	m.step("prepare the disks")
	if err := m.prepare(ctx, c, nodes, w.Precondition != "none"); err != nil {
		return nil, err
	}
	steady := true
	if w.Precondition == "steady" {
		m.step("write to the disks until their speed is steady")
		var err error
		if steady, err = m.settle(ctx, c, nodes); err != nil {
			return nil, err
		}
	}
	var watch *monitor.Monitor
	var watchErr error
	var host monitor.Host
	run, err := gate.Together(ctx, clients(nodes), gate.Options{
		Run:     agent.Run{JobFile: w.JobFile, Options: c.Options, Engine: m.spec.Guest.Engine},
		Started: func() { watch, watchErr = monitor.Start(ctx, watched(nodes)) },
		Ended: func() {
			if watch != nil {
				host = watch.Stop()
			}
		},
		Progress: m.progress(),
	})
	if err = errors.Join(err, watchErr); err != nil {
		return nil, err
	}
	run.Host, run.HostText, run.Unsteady = host, monitor.LoadText(ctx), !steady
	run.Notes = append(run.Notes, notes(run)...)
	return run, nil
}

// notes are what the engines of the nodes said, each once.
func notes(run *outcome.Run) []string {
	var all []string
	seen := map[string]bool{}
	for _, n := range run.Nodes {
		for _, text := range n.Result.Notes {
			if !seen[text] {
				seen[text] = true
				all = append(all, text)
			}
		}
	}
	return all
}

func (m *matrix) prepare(ctx context.Context, c spec.Cell, nodes []*node, fill bool) error {
	return together(nodes, func(n *node) error {
		p := agent.Prepare{FileSystem: c.FileSystem, Fill: fill && c.FileSystem == "none", Image: m.spec.Guest.Image != ""}
		if n.host != nil {
			p.URL, p.Cache, p.AIO, p.Filters = n.disk.URL, n.disk.Cache, n.disk.AIO, n.disk.Filters
		} else {
			p.Serial, p.Scheduler = vm.DataSerial, c.Setup.GuestScheduler
		}
		got, err := n.conn.Prepare(ctx, p)
		if err == nil && c.Setup.Device == "vfio-pci" {
			err = checkWhole(got.Size, m.spec.Disk.Size)
		}
		return err
	})
}

// checkWhole refuses a device that was handed to a guest, all of it, if its size is not
// that of the experiment's disks; only the guest can tell.
func checkWhole(got, want int64) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("device=vfio-pci is a device of %d bytes and used as a whole, the disk of a node has %d: --set disk=%[1]d", got, want)
}

const (
	// settleLimit bounds how long a disk is written to until its rate is steady.
	settleLimit = 10 * time.Minute
	// settleWindow is the shortest time over which the rate has to be steady.
	settleWindow = 2 * time.Second
)

// settle fills the disks a second time and writes to them until the rate is
// steady, as SNIA's performance test does. It reports whether all were in the end.
func (m *matrix) settle(ctx context.Context, c spec.Cell, nodes []*node) (bool, error) {
	if err := m.prepare(ctx, c, nodes, true); err != nil {
		return false, err
	}
	window := max(m.spec.Runtime(c)/2, settleWindow)
	job := fmt.Sprintf(`[settle]
rw=randwrite
bs=4k
direct=1
ioengine=libaio
iodepth=32
norandommap
time_based
runtime=%d
steadystate=iops:20%%
steadystate_duration=%d
`, int(min(settleLimit, 6*window)/time.Second), int(window/time.Second))
	run, err := gate.Together(ctx, clients(nodes), gate.Options{Run: agent.Run{JobFile: job, Engine: m.spec.Guest.Engine}, Progress: m.progress()})
	if err != nil {
		return false, fmt.Errorf("precondition the disks: %w", err)
	}
	for _, n := range run.Nodes {
		if !n.Result.Steady {
			return false, nil
		}
	}
	return true, nil
}

func clients(nodes []*node) []gate.Node {
	var all []gate.Node
	for _, n := range nodes {
		x := gate.Node{Name: n.name, Conn: n.conn}
		if n.guest != nil {
			x.Exited = n.guest.Exited()
		} else {
			x.Exited = n.host.Exited()
		}
		all = append(all, x)
	}
	return all
}

// watched are the processes and devices that the load goes through.
func watched(nodes []*node) monitor.Options {
	o := monitor.Options{Processes: []monitor.Process{{Name: "vmdisk", PID: os.Getpid()}}}
	seen := map[string]bool{"": true}
	for _, n := range nodes {
		if n.guest != nil {
			o.Processes = append(o.Processes, monitor.Process{Name: "qemu " + n.name, PID: n.guest.PID()})
		} else {
			o.Processes = append(o.Processes, monitor.Process{Name: "client " + n.name, PID: n.host.PID()})
		}
		for _, p := range n.disk.Processes {
			o.Processes = append(o.Processes, monitor.Process(p))
		}
		if !seen[n.disk.HostDevice] {
			seen[n.disk.HostDevice] = true
			o.Devices = append(o.Devices, n.disk.HostDevice)
		}
	}
	return o
}

func (m *matrix) progress() func(agent.Progress) {
	if m.o.Progress == nil {
		return nil
	}
	return func(p agent.Progress) {
		m.o.Progress(Progress{Share: p.Share, IOPS: p.IOPS, BW: p.BW, Stalled: time.Duration(p.Stalled)})
	}
}

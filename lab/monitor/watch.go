package monitor

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"golang.org/x/sys/unix"
)

// Options says what to watch.
type Options struct {
	// Processes are watched with all their threads, not with their children. One
	// that ends keeps the figures of its last sample.
	Processes []Process
	// Devices are block devices of the host: loop3, /dev/loop3, /dev/mapper/x.
	Devices []string
	// Interval between points; 0 is one second, less than 100 ms is 100 ms.
	Interval time.Duration

	proc, sys string // mount points, for tests
}

const (
	defaultInterval = time.Second
	minInterval     = 100 * time.Millisecond
)

// Monitor measures the host from Start to Stop.
type Monitor struct {
	sampler *sampler
	stop    func()
	done    sync.WaitGroup
}

// Start begins to measure. It fails where a process does not run or a device is
// not there. Stop must be called, also when ctx, which ends the sampling early,
// has ended.
func Start(ctx context.Context, o Options) (*Monitor, error) {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	o.Interval = max(o.Interval, minInterval)
	s, err := newSampler(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &Monitor{sampler: s, stop: cancel}
	m.done.Go(func() { m.run(ctx, o.Interval) })
	return m, nil
}

// run owns the sampler. A late tick makes one longer point and delays none of the
// later ones.
func (m *Monitor) run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.sampler.sample()
			return
		case <-tick.C:
			m.sampler.sample()
		}
	}
}

// Stop takes a last sample and returns what was measured. A second call returns
// the same.
func (m *Monitor) Stop() Host {
	m.stop()
	m.done.Wait()
	return m.sampler.host()
}

// sampler turns snapshots of the kernel's counters into a Host.
type sampler struct {
	fs          procfs.FS
	disks       blockdevice.FS
	sys         string
	first, last *snapshot
	processes   []*process
	devices     []*device
	exits       exits
	points      []Point
}

func newSampler(o Options) (*sampler, error) {
	s := &sampler{sys: o.sys}
	if s.sys == "" {
		s.sys = "/sys"
	}
	if o.proc == "" {
		o.proc = "/proc"
	}
	var err error
	if s.fs, err = procfs.NewFS(o.proc); err != nil {
		return nil, fmt.Errorf("watch the host: %w", err)
	}
	if s.disks, err = blockdevice.NewFS(o.proc, s.sys); err != nil {
		return nil, fmt.Errorf("watch the host: %w", err)
	}
	if s.first, err = s.look(); err != nil {
		return nil, fmt.Errorf("watch the host: %w", err)
	}
	s.last = s.first
	for _, p := range o.Processes {
		w, err := newProcess(s.fs, p)
		if err != nil {
			return nil, err
		}
		s.processes = append(s.processes, w)
	}
	for _, name := range o.Devices {
		d, err := newDevice(name, s.first)
		if err != nil {
			return nil, err
		}
		s.devices = append(s.devices, d)
	}
	s.exits = newExits(filepath.Join(s.sys, "kernel/debug/kvm"))
	return s, nil
}

// snapshot is the state of all counters at one time.
type snapshot struct {
	at    int64 // CLOCK_MONOTONIC, ns
	stat  procfs.Stat
	load  procfs.LoadAvg
	psi   *pressure
	disks map[string]blockdevice.IOStats
}

func (s *sampler) look() (*snapshot, error) {
	now := &snapshot{at: monotonic(), psi: readPressure(s.fs), disks: map[string]blockdevice.IOStats{}}
	var err error
	if now.stat, err = s.fs.Stat(); err != nil {
		return nil, err
	}
	load, err := s.fs.LoadAvg()
	if err != nil {
		return nil, err
	}
	now.load = *load
	disks, err := s.disks.ProcDiskstats()
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		now.disks[d.DeviceName] = d.IOStats
	}
	return now, nil
}

// sample adds one point. A snapshot that fails is left out: the next point is
// longer.
func (s *sampler) sample() {
	now, err := s.look()
	if err != nil || now.at <= s.last.at {
		return
	}
	for _, p := range s.processes {
		p.look(s.fs, now.at)
	}
	s.exits.look()
	cpu := share(s.last.stat.CPUTotal, now.stat.CPUTotal)
	point := Point{AtNS: now.at - s.first.at, Busy: cpu.busy, IOWait: cpu.iowait, Steal: cpu.steal, Load1: now.load.Load1}
	for _, d := range s.devices {
		point.Device = max(point.Device, d.look(now, now.at-s.last.at))
	}
	if now.psi != nil && s.last.psi != nil {
		point.IOFull = portion(now.psi.ioFull-s.last.psi.ioFull, now.at-s.last.at)
	}
	s.points = append(s.points, point)
	s.last = now
}

func (s *sampler) host() Host {
	took := s.last.at - s.first.at
	cpu := share(s.first.stat.CPUTotal, s.last.stat.CPUTotal)
	h := Host{
		StartedNS: s.first.at, ElapsedNS: took, CPUs: len(s.last.stat.CPU),
		Busy: cpu.busy, IOWait: cpu.iowait, Steal: cpu.steal,
		Load:     [3]float64{s.last.load.Load1, s.last.load.Load5, s.last.load.Load15},
		Switches: perSecond(s.last.stat.ContextSwitches-s.first.stat.ContextSwitches, took),
		Pressure: s.first.psi.until(s.last.psi, took), Exits: s.exits.perSecond(took), Points: s.points,
	}
	for _, p := range s.processes {
		h.Processes = append(h.Processes, p.usage(took))
	}
	for _, d := range s.devices {
		h.Devices = append(h.Devices, d.use(took))
	}
	return h
}

// cpuShare is how the CPUs' time divides, 0..1.
type cpuShare struct{ busy, iowait, steal float64 }

func share(a, b procfs.CPUStat) cpuShare {
	// A guest's time is inside User. IOWait may step back; the kernel says so.
	busy := (b.User - a.User) + (b.Nice - a.Nice) + (b.System - a.System) + (b.IRQ - a.IRQ) + (b.SoftIRQ - a.SoftIRQ)
	iowait, steal := max(b.Iowait-a.Iowait, 0), b.Steal-a.Steal
	total := busy + iowait + steal + max(b.Idle-a.Idle, 0)
	if total <= 0 {
		return cpuShare{}
	}
	return cpuShare{busy / total, iowait / total, steal / total}
}

func perSecond(n uint64, tookNS int64) float64 {
	if tookNS <= 0 {
		return 0
	}
	return float64(n) / float64(tookNS) * 1e9
}

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // the clock is always there
	}
	return ts.Nano()
}

// CPUs is the number of CPUs that this process may run on.
func CPUs() int { return runtime.NumCPU() }

package engine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/result"
)

// host samples the machine each second: what the CPUs and the devices under test
// did, and how much time the hypervisor took away.
type host struct {
	run     *runState
	proc    procfs.FS
	block   blockdevice.FS
	ok      bool
	devices []string
	first   map[string]blockdevice.Diskstats
	disks   map[string]blockdevice.Diskstats
	cpu     procfs.CPUStat
	used    time.Duration
	at      time.Time
	quit    chan struct{}
	wg      sync.WaitGroup
}

func startHost(r *runState) *host {
	h := &host{run: r, quit: make(chan struct{})}
	r.out.HostName, _ = os.Hostname()
	r.out.CPUs = runtime.NumCPU()
	r.out.Kernel = kernel()
	var err, err2 error
	h.proc, err = procfs.NewDefaultFS()
	h.block, err2 = blockdevice.NewDefaultFS()
	h.ok = err == nil && err2 == nil
	h.findDevices()
	h.sample(false)
	h.first = h.disks
	h.wg.Go(h.loop)
	return h
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (h *host) findDevices() {
	if h.run.cfg.Devices == nil {
		return
	}
	for _, w := range h.run.workers {
		if w.fake() {
			continue
		}
		for _, name := range h.run.names(w.job) {
			for _, dev := range h.run.cfg.Devices(name) {
				if !slices.Contains(h.devices, dev) {
					h.devices = append(h.devices, dev)
				}
			}
		}
	}
}

func (h *host) loop() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-t.C:
			h.sample(true)
		}
	}
}

func (h *host) stop() {
	close(h.quit)
	h.wg.Wait()
	h.sample(time.Since(h.at) > 100*time.Millisecond)
	span := time.Since(h.run.start)
	for _, name := range h.devices {
		a, b := h.first[name], h.disks[name]
		if b.DeviceName == "" {
			continue
		}
		h.run.out.Disks = append(h.run.out.Disks, result.DiskUse{
			Name: name, IOs: [2]uint64{b.ReadIOs - a.ReadIOs, b.WriteIOs - a.WriteIOs},
			Merges:  [2]uint64{b.ReadMerges - a.ReadMerges, b.WriteMerges - a.WriteMerges},
			Ticks:   [2]uint64{b.ReadTicks - a.ReadTicks, b.WriteTicks - a.WriteTicks},
			Sectors: [2]uint64{b.ReadSectors - a.ReadSectors, b.WriteSectors - a.WriteSectors},
			InQueue: b.WeightedIOTicks - a.WeightedIOTicks,
			Util:    min(100, float64(b.IOsTotalTicks-a.IOsTotalTicks)*100/float64(max(span.Milliseconds(), 1))),
		})
	}
}

// sample reads the counters and, if keep is set, appends what happened since the
// last call.
func (h *host) sample(keep bool) {
	if !h.ok {
		return
	}
	stat, err := h.proc.Stat()
	if err != nil {
		return
	}
	now := time.Now()
	disks := map[string]blockdevice.Diskstats{}
	if list, err := h.block.ProcDiskstats(); err == nil {
		for _, d := range list {
			disks[d.DeviceName] = d
		}
	}
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if keep {
		h.run.out.Host = append(h.run.out.Host, h.point(stat.CPUTotal, disks, used, now))
	}
	h.cpu, h.disks, h.used, h.at = stat.CPUTotal, disks, used, now
}

func (h *host) point(c procfs.CPUStat, disks map[string]blockdevice.Diskstats, used time.Duration, now time.Time) result.HostPoint {
	total := cpuSum(c) - cpuSum(h.cpu)
	if total <= 0 {
		total = 1
	}
	span := now.Sub(h.at)
	p := result.HostPoint{At: now.Sub(h.run.start), Steal: (c.Steal - h.cpu.Steal) / total, IOWait: (c.Iowait - h.cpu.Iowait) / total,
		Busy: 1 - (c.Idle-h.cpu.Idle+c.Iowait-h.cpu.Iowait)/total, ProcessCPU: float64(used-h.used) / float64(span)}
	for _, name := range h.devices {
		busy := float64(disks[name].IOsTotalTicks-h.disks[name].IOsTotalTicks) / float64(max(span.Milliseconds(), 1))
		p.Device = max(p.Device, min(busy, 1))
	}
	return p
}

func cpuSum(c procfs.CPUStat) float64 {
	return c.User + c.Nice + c.System + c.Idle + c.Iowait + c.IRQ + c.SoftIRQ + c.Steal
}

// bounds says for each reporting group what held it back.
func bounds(r *runState) []result.Bound {
	var out []result.Bound
	for g := 0; ; g++ {
		var jobs []*result.Job
		for _, j := range r.out.Jobs {
			if j.Spec.Group == g {
				jobs = append(jobs, j)
			}
		}
		if len(jobs) == 0 {
			return out
		}
		if b, ok := bound(r.out, jobs); ok {
			b.Group = g
			out = append(out, b)
		}
	}
}

const nearlyAll = 0.9

func bound(run *result.Run, jobs []*result.Job) (result.Bound, bool) {
	var elapsed, cpu time.Duration
	var begin, end time.Duration
	rated, ios := true, uint64(0)
	for i, j := range jobs {
		elapsed += j.Elapsed
		cpu += j.User + j.System
		if i == 0 || j.Begin < begin {
			begin = j.Begin
		}
		end = max(end, j.Begin+j.Elapsed)
		for d := range j.Dirs {
			ios += j.Dirs[d].IOs
			if j.Dirs[d].IOs > 0 && j.Spec.Rate[d] == 0 && j.Spec.RateIOPS[d] == 0 && j.Spec.ThinkTime == 0 {
				rated = false
			}
		}
	}
	if elapsed == 0 || ios == 0 {
		return result.Bound{}, false
	}
	busy, steal, device := hostMeans(run.Host, begin, end)
	share := float64(cpu) / float64(elapsed)
	switch {
	case steal > 0.1:
		return result.Bound{What: "cpu", Why: fmt.Sprintf("the hypervisor took %.0f %% of the CPU time (steal); the figures are of a disturbed machine", steal*100)}, true
	case share > nearlyAll:
		return result.Bound{What: "cpu", Why: fmt.Sprintf("the jobs' threads were on the CPU %.0f %% of the time", share*100)}, true
	case device > nearlyAll:
		return result.Bound{What: "device", Why: fmt.Sprintf("the device was busy %.0f %% of the time", device*100)}, true
	case busy > 0.95:
		return result.Bound{What: "cpu", Why: fmt.Sprintf("all CPUs of the machine were %.0f %% busy, the jobs' threads %.0f %%", busy*100, share*100)}, true
	case rated:
		return result.Bound{What: "rate", Why: "the jobs waited for the rate or thinktime that was asked for"}, true
	}
	return result.Bound{What: "queue", Why: fmt.Sprintf("iodepth %d waited for completions: CPU %.0f %%, device %.0f %% busy; more I/O in flight may give more", jobs[0].Spec.Depth, share*100, device*100)}, true
}

func hostMeans(points []result.HostPoint, from, to time.Duration) (busy, steal, device float64) {
	n := 0.0
	for _, p := range points {
		if p.At >= from && p.At <= to+time.Second {
			n++
			busy, steal, device = busy+p.Busy, steal+p.Steal, device+p.Device
		}
	}
	n = max(n, 1)
	return busy / n, steal / n, device / n
}

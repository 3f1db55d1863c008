package monitor

import (
	"fmt"

	"github.com/prometheus/procfs"
)

// process follows one process.
type process struct {
	Process
	began       uint64 // start time in ticks: a PID that is used again is another process
	first, last procfs.ProcStat
	// base and now are the context switches of each thread; those of one that has
	// ended stay.
	base, now map[int]switches
	looked    int64
	rss       int64
}

type switches struct{ voluntary, involuntary uint64 }

// threadsEvery limits the reading of each thread's status, which costs about
// 30 us a thread; QEMU may have a hundred.
const threadsEvery = 1e9

const ticksPerSecond = 100 // USER_HZ, the same on all architectures of Linux that Go knows

func newProcess(fs procfs.FS, p Process) (*process, error) {
	proc, err := fs.Proc(p.PID)
	if err != nil {
		return nil, fmt.Errorf("watch %s: process %d does not run: %w", p.Name, p.PID, err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return nil, fmt.Errorf("watch %s: process %d: %w", p.Name, p.PID, err)
	}
	w := &process{Process: p, began: stat.Starttime, first: stat, last: stat, base: map[int]switches{}, now: map[int]switches{}}
	w.threads(fs)
	for tid, s := range w.now {
		w.base[tid] = s
	}
	return w, nil
}

func (w *process) look(fs procfs.FS, at int64) {
	proc, err := fs.Proc(w.PID)
	if err != nil {
		return // ended: what was seen last stays
	}
	stat, err := proc.Stat()
	if err != nil || stat.Starttime != w.began {
		return
	}
	w.last = stat
	if at-w.looked >= threadsEvery {
		w.looked = at
		w.threads(fs)
	}
}

func (w *process) threads(fs procfs.FS) {
	threads, err := fs.AllThreads(w.PID)
	if err != nil {
		return
	}
	for _, t := range threads {
		status, err := t.NewStatus()
		if err != nil {
			continue // it ended just now
		}
		w.now[t.PID] = switches{status.VoluntaryCtxtSwitches, status.NonVoluntaryCtxtSwitches}
		w.rss = max(w.rss, int64(status.VmHWM))
	}
}

func (w *process) usage(tookNS int64) Usage {
	u := Usage{Name: w.Name, UserNS: ticks(w.last.UTime - w.first.UTime), SystemNS: ticks(w.last.STime - w.first.STime), MaxRSS: w.rss}
	if tookNS > 0 {
		u.CPUs = float64(u.UserNS+u.SystemNS) / float64(tookNS)
	}
	for tid, s := range w.now {
		u.Voluntary += s.voluntary - w.base[tid].voluntary
		u.Involuntary += s.involuntary - w.base[tid].involuntary
	}
	return u
}

func ticks(n uint) int64 { return int64(n) * (1e9 / ticksPerSecond) }

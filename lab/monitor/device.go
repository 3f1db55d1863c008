package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/prometheus/procfs/blockdevice"
)

// device follows one block device.
type device struct {
	name        string
	first, last blockdevice.IOStats
}

func newDevice(name string, now *snapshot) (*device, error) {
	kernel := name
	if strings.HasPrefix(name, "/") {
		path, err := filepath.EvalSymlinks(name) // /dev/mapper/x is a link to /dev/dm-0
		if err != nil {
			return nil, fmt.Errorf("watch device %s: %w", name, err)
		}
		kernel = filepath.Base(path)
	}
	stats, ok := now.disks[kernel]
	if !ok {
		return nil, fmt.Errorf("watch device %s: the kernel has no block device %s (see /proc/diskstats)", name, kernel)
	}
	return &device{name: kernel, first: stats, last: stats}, nil
}

// look returns the share of the last tookNS in which the device was busy. A device
// that is gone keeps its figures.
func (d *device) look(now *snapshot, tookNS int64) float64 {
	stats, ok := now.disks[d.name]
	if !ok || stats.IOsTotalTicks < d.last.IOsTotalTicks {
		return 0
	}
	busy := portion((stats.IOsTotalTicks-d.last.IOsTotalTicks)*1e3, tookNS)
	d.last = stats
	return busy
}

const sector = 512 // of /proc/diskstats, whatever the device's is

func (d *device) use(tookNS int64) Device {
	a, b := d.first, d.last
	return Device{
		Name: d.name, Utilization: portion((b.IOsTotalTicks-a.IOsTotalTicks)*1e3, tookNS),
		ReadIOPS: perSecond(b.ReadIOs-a.ReadIOs, tookNS), WriteIOPS: perSecond(b.WriteIOs-a.WriteIOs, tookNS),
		ReadBW:  sector * perSecond(b.ReadSectors-a.ReadSectors, tookNS),
		WriteBW: sector * perSecond(b.WriteSectors-a.WriteSectors, tookNS),
	}
}

// portion is us microseconds as a share of ns nanoseconds, 0..1.
func portion(us uint64, ns int64) float64 {
	if ns <= 0 {
		return 0
	}
	return min(float64(us)*1e3/float64(ns), 1)
}

// pressure is the kernel's running totals of PSI in microseconds.
type pressure struct{ cpuSome, ioSome, ioFull, memorySome, memoryFull uint64 }

// readPressure returns nil where the kernel has no PSI, or has it off.
func readPressure(fs procfs.FS) *pressure {
	var p pressure
	for _, r := range []struct {
		name       string
		some, full *uint64
	}{{"cpu", &p.cpuSome, nil}, {"io", &p.ioSome, &p.ioFull}, {"memory", &p.memorySome, &p.memoryFull}} {
		stats, err := fs.PSIStatsForResource(r.name)
		if err != nil || stats.Some == nil || r.full != nil && stats.Full == nil {
			return nil
		}
		*r.some = stats.Some.Total
		if r.full != nil {
			*r.full = stats.Full.Total
		}
	}
	return &p
}

func (p *pressure) until(q *pressure, tookNS int64) *Pressure {
	if p == nil || q == nil {
		return nil
	}
	return &Pressure{
		CPUSome: portion(q.cpuSome-p.cpuSome, tookNS),
		IOSome:  portion(q.ioSome-p.ioSome, tookNS), IOFull: portion(q.ioFull-p.ioFull, tookNS),
		MemorySome: portion(q.memorySome-p.memorySome, tookNS), MemoryFull: portion(q.memoryFull-p.memoryFull, tookNS),
	}
}

// exits follows the guest exits of all KVM guests, which debugfs counts in a
// folder per guest that goes when the guest ends.
type exits struct {
	dir       string
	known     bool
	base, now map[string]uint64
}

func newExits(dir string) exits {
	e := exits{dir: dir, now: map[string]uint64{}}
	_, err := os.ReadDir(dir)
	e.known = err == nil
	e.look()
	e.base, e.now = e.now, map[string]uint64{}
	return e
}

func (e *exits) look() {
	if !e.known {
		return
	}
	files, err := filepath.Glob(filepath.Join(e.dir, "*", "exits"))
	if err != nil {
		return
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the guest ended just now
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
			e.now[f] = n
		}
	}
}

func (e *exits) perSecond(tookNS int64) float64 {
	if !e.known {
		return -1
	}
	var n uint64
	for f, v := range e.now {
		n += v - min(e.base[f], v)
	}
	return perSecond(n, tookNS)
}

package agent

import (
	"encoding/json"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Port is the name of the virtio-serial port.
const Port = "vmdisk.agent"

// Hello is the agent's first line.
type Hello struct {
	Version string `json:"version"` // of vmdisk
	Kernel  string `json:"kernel"`
	CPUs    int    `json:"cpus"`
	Memory  int64  `json:"memory"` // bytes
	PID     int    `json:"pid"`    // 1: it is the guest's init
	// UptimeNS is the node's time since its kernel started.
	UptimeNS int64 `json:"uptime_ns"`
	// Fio is the version of the fio that can be run, "" without one.
	Fio string `json:"fio,omitempty"`
}

// Prepare tells the agent which disk to use and how.
type Prepare struct {
	// Serial finds the guest's disk: by its serial number, else, where the device
	// has none, the first disk that is not the image's. Empty with URL.
	Serial string `json:"serial,omitempty"`
	// URL is the disk of a host client, as `vmdisk bench --disk` takes it, with
	// Cache, AIO and Filters.
	URL     string   `json:"url,omitempty"`
	Cache   string   `json:"cache,omitempty"`
	AIO     string   `json:"aio,omitempty"`
	Filters []string `json:"filters,omitempty"`
	// FileSystem is mounted (it is there already) and the jobs' files lie on it;
	// none: the jobs use the disk itself, as those of host clients always do.
	FileSystem string `json:"file_system,omitempty"`
	// Scheduler of the guest's disk; "" or default: as it is.
	Scheduler string `json:"scheduler,omitempty"`
	// Fill writes every block of the disk once.
	Fill bool `json:"fill,omitempty"`
	// Image: find fio in the root file system of another disk.
	Image bool `json:"image,omitempty"`
}

// Prepared is what the agent found.
type Prepared struct {
	Device    string `json:"device,omitempty"` // vda
	Size      int64  `json:"size"`
	Scheduler string `json:"scheduler,omitempty"` // the one in force
	Mount     string `json:"mount,omitempty"`
	Fio       string `json:"fio,omitempty"`
}

// Run is a job file to run.
type Run struct {
	JobFile string   `json:"job_file"`
	Options []string `json:"options,omitempty"` // NAME=VALUE, they win
	// Engine is vmdisk or fio.
	Engine string `json:"engine"`
	// Gate: when files are laid out and disks are open the agent says so
	// (Progress.Ready) and issues nothing before the time in Go.
	Gate bool `json:"gate,omitempty"`
	// IntervalMS is between the points of engine fio, 0: 500. The built-in engine has
	// points of 500 ms, in the first 10 s of 100 ms.
	IntervalMS int64 `json:"interval_ms,omitempty"`
}

// Go opens the gate of a run.
type Go struct {
	// StartNS is the agent's monotonic time at which to issue the first I/O.
	StartNS int64 `json:"start_ns"`
}

// Progress tells of a run that goes on.
type Progress struct {
	// Ready: everything is laid out and open, the run waits for Go.
	Ready   bool    `json:"ready,omitempty"`
	Share   float64 `json:"share,omitempty"`
	IOPS    float64 `json:"iops,omitempty"`
	BW      float64 `json:"bw,omitempty"` // bytes per second
	Stalled int64   `json:"stalled_ns,omitempty"`
}

// Point is one sample of a job's progress, of the interval that ends at AtNS.
type Point struct {
	AtNS     int64                `json:"at_ns"` // since Result.StartNS
	TookNS   int64                `json:"took_ns"`
	IOs      [jobfile.Dirs]uint64 `json:"ios"` // read, write, trim
	Bytes    [jobfile.Dirs]uint64 `json:"bytes"`
	LatSumNS [jobfile.Dirs]uint64 `json:"lat_sum_ns"`
}

// Stall is a time with I/O in flight and no completion.
type Stall struct {
	AtNS   int64 `json:"at_ns"` // since Result.StartNS
	TookNS int64 `json:"took_ns"`
}

// HistPoint is the completion latencies of one interval in one direction.
type HistPoint struct {
	AtNS   int64 `json:"at_ns"` // end of the interval, since Result.StartNS
	TookNS int64 `json:"took_ns"`
	Dir    uint8 `json:"dir"`
	Bins   Bins  `json:"bins"`
}

// DirResult is what one job did in one direction over its whole run.
type DirResult struct {
	IOs       uint64  `json:"ios"`
	Bytes     uint64  `json:"bytes"`
	RuntimeNS int64   `json:"runtime_ns"` // as fio counts it: end_fsync lies inside
	IOPS      float64 `json:"iops"`
	BW        float64 `json:"bw_bytes"`
	// Clat is the completion latency.
	Clat Latency `json:"clat"`
}

// Latency is a histogram with its exact figures, in nanoseconds.
type Latency struct {
	N      uint64  `json:"n"`
	Min    int64   `json:"min"`
	Max    int64   `json:"max"`
	Mean   float64 `json:"mean"`
	Stddev float64 `json:"stddev"`
	Bins   Bins    `json:"bins,omitempty"`
}

// JobResult is one job (those of a group with group_reporting are merged, under the
// first one's name, as fio merges them).
type JobResult struct {
	Name   string                  `json:"name"`
	Group  int                     `json:"group"`
	Jobs   int                     `json:"jobs"` // merged in it
	Dirs   [jobfile.Dirs]DirResult `json:"dirs"`
	Points []Point                 `json:"points"`
	Stalls []Stall                 `json:"stalls,omitempty"`
	// Hists are latencies by interval of a second, so that those of a window can be
	// added up.
	Hists []HistPoint `json:"hists,omitempty"`
	Err   string      `json:"error,omitempty"`
}

// Result is a finished run.
type Result struct {
	// StartNS and EndNS are on the agent's monotonic clock: first issue, last job done.
	StartNS int64       `json:"start_ns"`
	EndNS   int64       `json:"end_ns"`
	Jobs    []JobResult `json:"jobs"`
	// Stalls are the times in which no job that was at work got anything done; those
	// of each job stand with it.
	Stalls []Stall `json:"stalls,omitempty"`
	// CPUBusy and Steal are shares 0..1 of the node's CPUs in between; for a host
	// client CPUBusy is of the process itself, in CPUs.
	CPUBusy float64 `json:"cpu_busy"`
	Steal   float64 `json:"steal"`
	// UserNS and SystemNS are of the process that ran the jobs.
	UserNS   int64 `json:"user_ns"`
	SystemNS int64 `json:"system_ns"`
	// Bound is what the engine says limited the run: cpu, device, queue, rate; "" if
	// it can't tell.
	Bound string `json:"bound,omitempty"`
	// Steady: a steady-state criterion was given and met.
	Steady bool     `json:"steady,omitempty"`
	Notes  []string `json:"notes,omitempty"`
	// JSON is what `vmdisk bench --output-format json+` or fio's printed.
	JSON json.RawMessage `json:"json,omitempty"`
	// Text is the same for people.
	Text string `json:"text,omitempty"`
	// Err is set when the run did not do all it was asked for.
	Err string `json:"error,omitempty"`
}

// Package result holds what a benchmark run measured and writes it the ways fio
// writes it (normal, json, json+, terse, logs) and as one self-contained HTML page.
package result

import (
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Samples summarises values taken at regular intervals.
type Samples struct {
	N              uint64
	Min, Max       float64
	sum, sumSquare float64
}

// Add counts one sample.
func (s *Samples) Add(v float64) {
	if s.N == 0 || v < s.Min {
		s.Min = v
	}
	if v > s.Max {
		s.Max = v
	}
	s.N++
	s.sum += v
	s.sumSquare += v * v
}

// Merge adds the samples of o as those of another job that ran beside: minima,
// maxima and means add up, as fio sums groups.
func (s *Samples) Merge(o *Samples) {
	if o.N == 0 {
		return
	}
	if s.N == 0 {
		*s = *o
		return
	}
	n, m := float64(s.N), float64(o.N)
	scale := n / m
	dev := s.variance() + o.variance()
	mean := s.sum/n + o.sum/m
	s.Min += o.Min
	s.Max += o.Max
	s.sum += o.sum * scale
	s.sumSquare = dev*(n-1) + mean*mean*n
}

// Mean is the average.
func (s *Samples) Mean() float64 {
	if s.N == 0 {
		return 0
	}
	return s.sum / float64(s.N)
}

func (s *Samples) variance() float64 {
	if s.N < 2 {
		return 0
	}
	n := float64(s.N)
	return max(0, (s.sumSquare-s.sum*s.sum/n)/(n-1))
}

// Dir is what one job did in one direction.
type Dir struct {
	IOs, Bytes uint64
	Short      uint64
	Dropped    uint64
	// Runtime is the time in which the direction was active.
	Runtime time.Duration
	// Slat is submission, Clat completion, Lat their sum; Intended is from the time
	// at which a rated job should have issued the I/O (nil if the job has no rate).
	Slat, Clat, Lat hist.Histogram
	Intended        *hist.Histogram
	BW, IOPS        Samples // KiB/s and I/O/s over each averaging window
}

// BWBytes is the bandwidth in bytes per second.
func (d *Dir) BWBytes() float64 { return rate(d.Bytes, d.Runtime) }

// IOPSMean is the I/O rate over the runtime.
func (d *Dir) IOPSMean() float64 { return rate(d.IOs, d.Runtime) }

// rate is n per second. fio divides by whole milliseconds, which makes 0 of what
// took less than one.
func rate(n uint64, t time.Duration) float64 {
	if t <= 0 {
		return 0
	}
	return float64(n) / t.Seconds()
}

// Point is one sample of a job's progress. Values are of the interval that ends
// at At.
type Point struct {
	At    time.Duration // since the run began
	Took  time.Duration
	IOs   [jobfile.Dirs]uint64
	Bytes [jobfile.Dirs]uint64
	// LatSum is the sum of the latencies of the I/Os, in nanoseconds.
	LatSum [jobfile.Dirs]uint64
}

// Stall is a time in which I/O was in flight and none completed.
type Stall struct {
	At   time.Duration // since the run began
	Took time.Duration
}

// LogRecord is one line of a bw, iops or latency log.
type LogRecord struct {
	At    time.Duration // since the job began
	Value uint64
	Dir   uint8
	BS    uint32
	Off   uint64
}

// Log kinds, in the names of the files.
const (
	LogBW = iota
	LogIOPS
	LogLat
	LogSlat
	LogClat
	Logs
)

// HistRecord is one line of a clat_hist log.
type HistRecord struct {
	At     time.Duration
	Dir    uint8
	Counts []uint64
}

// Job is the outcome of one job, or of the jobs of a group.
type Job struct {
	Spec    *jobfile.Job
	Merged  int // jobs in it, 1 for a plain job
	Started time.Time
	Begin   time.Duration // since the run began
	Elapsed time.Duration // with ramp and verify
	Dirs    [jobfile.Dirs]Dir
	Syncs   uint64
	Sync    hist.Histogram

	User, System time.Duration
	Switches     uint64 // context switches
	Major, Minor uint64 // page faults

	Depth            [7]uint64
	Submit, Complete [7]uint64
	Submits          uint64
	Completes        uint64
	Issued           uint64

	// Err is what ended the job early, Errors what continue_on_error let pass.
	Err        error
	Errno      int
	Errors     uint64
	FirstErrno int
	// Interrupted: the run was ended from outside before the job was done.
	Interrupted bool

	Points []Point
	Stalls []Stall
	// StallsLost are stalls beyond those kept in Stalls.
	StallsLost int

	// LatencyDepth is the depth that latency_target found.
	LatencyDepth int
	// Steady tells when ss= was met.
	Steady *Steady

	LogData [Logs][]LogRecord
	HistLog []HistRecord
}

// Steady is the outcome of a steady-state criterion.
type Steady struct {
	Attained  bool
	At        time.Duration
	Deviation float64 // of the window when it ended
	Slope     float64
	BW, IOPS  []float64 // samples of the window, one a second
}

// Partial reports whether the figures cover less than was asked for.
func (j *Job) Partial() bool { return j.Err != nil || j.Interrupted }

// DiskUse is the load of one block device during the run.
type DiskUse struct {
	Name               string
	IOs, Merges, Ticks [2]uint64 // read, write; ticks in ms
	Sectors            [2]uint64
	InQueue            uint64 // ms
	Util               float64
}

// HostPoint is one sample of the machine's load, each 0..1 of all CPUs.
type HostPoint struct {
	At          time.Duration
	Busy, Steal float64
	IOWait      float64
	Device      float64 // utilisation of the busiest device under test
	ProcessCPU  float64 // CPUs used by this process
}

// Run is the outcome of a run.
type Run struct {
	Version  string
	Target   string // the disk URL, empty if the job file named files
	JobFiles []JobText
	Started  time.Time
	Elapsed  time.Duration
	// Opened is when, since Started, the first phase was laid out and open and its
	// first I/O was issued.
	Opened   time.Duration
	Jobs     []*Job
	Disks    []DiskUse
	Host     []HostPoint
	HostName string
	CPUs     int
	Kernel   string
	Notes    []jobfile.Note
	Bounds   []Bound
	// Samples are the values of each cell over the rounds of a repeated run.
	Samples []Cell
}

// Cell is one figure of one job over repeated runs.
type Cell struct {
	Job, Dir, Metric string // Metric: iops, bw (bytes/s), lat_mean, lat_p50, lat_p99 (ns)
	Values           []float64
}

// JobText is a job file as it was given.
type JobText struct{ Name, Text string }

// Bound says what limited a group.
type Bound struct {
	Group int
	What  string // cpu, device, queue, rate, errors
	Why   string
}

// Groups merges the jobs of each reporting group that asks for it
// (group_reporting), under the first job's name; the others stay as they are.
func (r *Run) Groups() []*Job {
	var out []*Job
	merged := map[int]*Job{}
	for _, j := range r.Jobs {
		if !j.Spec.GroupReporting {
			out = append(out, j)
			continue
		}
		if m := merged[j.Spec.Group]; m != nil {
			m.merge(j)
			continue
		}
		m := j.clone()
		merged[j.Spec.Group] = m
		out = append(out, m)
	}
	return out
}

func (j *Job) clone() *Job {
	c := *j
	c.Merged = 1
	for d := range c.Dirs {
		if h := c.Dirs[d].Intended; h != nil {
			own := *h
			c.Dirs[d].Intended = &own
		}
	}
	c.Points = append([]Point(nil), j.Points...)
	c.Stalls = append([]Stall(nil), j.Stalls...)
	return &c
}

func (j *Job) merge(o *Job) {
	j.Merged++
	for d := range j.Dirs {
		j.Dirs[d].merge(&o.Dirs[d])
	}
	j.Syncs += o.Syncs
	j.Sync.Merge(&o.Sync)
	j.User += o.User
	j.System += o.System
	j.Switches += o.Switches
	j.Major += o.Major
	j.Minor += o.Minor
	for i := range j.Depth {
		j.Depth[i] += o.Depth[i]
		j.Submit[i] += o.Submit[i]
		j.Complete[i] += o.Complete[i]
	}
	j.Submits += o.Submits
	j.Completes += o.Completes
	j.Issued += o.Issued
	j.Errors += o.Errors
	j.Elapsed += o.Elapsed // fio sums the runtimes; CPU shares divide by it
	if j.Err == nil {
		j.Err, j.Errno = o.Err, o.Errno
	}
	j.Interrupted = j.Interrupted || o.Interrupted
	j.Stalls = append(j.Stalls, o.Stalls...)
	j.StallsLost += o.StallsLost
	j.mergePoints(o.Points)
}

// mergePoints adds o's samples to those taken at the same tick.
func (j *Job) mergePoints(points []Point) {
	at := make(map[time.Duration]int, len(j.Points))
	for i, p := range j.Points {
		at[p.At] = i
	}
	for _, p := range points {
		i, ok := at[p.At]
		if !ok {
			j.Points = append(j.Points, p)
			continue
		}
		for d := range p.IOs {
			j.Points[i].IOs[d] += p.IOs[d]
			j.Points[i].Bytes[d] += p.Bytes[d]
			j.Points[i].LatSum[d] += p.LatSum[d]
		}
	}
}

func (d *Dir) merge(o *Dir) {
	d.IOs += o.IOs
	d.Bytes += o.Bytes
	d.Short += o.Short
	d.Dropped += o.Dropped
	d.Runtime = max(d.Runtime, o.Runtime)
	d.Slat.Merge(&o.Slat)
	d.Clat.Merge(&o.Clat)
	d.Lat.Merge(&o.Lat)
	if o.Intended != nil {
		if d.Intended == nil {
			d.Intended = new(hist.Histogram)
		}
		d.Intended.Merge(o.Intended)
	}
	d.BW.Merge(&o.BW)
	d.IOPS.Merge(&o.IOPS)
}

// Failed returns the first error of the run's jobs.
func (r *Run) Failed() error {
	for _, j := range r.Jobs {
		if j.Err != nil {
			return j.Err
		}
	}
	return nil
}

package outcome

import (
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/monitor"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// Schema of the JSON; it grows when a field changes its meaning or goes.
const Schema = 1

// Results are everything that is known of an experiment.
type Results struct {
	Schema      int         `json:"schema"`
	Experiment  string      `json:"experiment"`
	Title       string      `json:"title"`
	Summary     string      `json:"summary"`
	Started     time.Time   `json:"started"`
	Environment Environment `json:"environment"`
	Sweeps      []Sweep     `json:"sweeps"`
	Cells       []Cell      `json:"cells"`
	// Repeats of every cell that are planned.
	Repeats int `json:"repeats"`
	// Partial: the experiment was stopped; more cells wait.
	Partial bool `json:"partial,omitempty"`
	// Notes are what a reader must know of the whole, such as damaged runs.
	Notes []string `json:"notes,omitempty"`
}

// Sweep is one table of the experiment.
type Sweep struct {
	Name      string     `json:"name"`
	Title     string     `json:"title"`
	Text      string     `json:"text,omitempty"`
	Axes      []string   `json:"axes"`
	Workloads []Workload `json:"workloads"`
}

// Workload is one job file.
type Workload struct {
	Name    string `json:"name"`
	Title   string `json:"title,omitempty"`
	JobFile string `json:"job_file"`
	// Metric decides which cell wins: MetricIOPS, MetricBW or MetricReadP99. "": IOPS,
	// or from blocks of 64 KiB on bandwidth.
	Metric string `json:"metric,omitempty"`
}

// The metrics that can decide.
const (
	MetricIOPS    = "iops"
	MetricBW      = "bw"
	MetricReadP99 = "read_p99"
)

// Fact is one name and value of the environment.
type Fact = monitor.Fact

// Environment is where the experiment ran: CPU, kernel, QEMU, file system, mount
// options, mitigations, accelerator and the like.
type Environment struct {
	Facts []Fact `json:"facts"`
	// Accel is kvm or tcg, "" where no guest ran; AccelWhy why KVM was not used.
	Accel    string `json:"accel,omitempty"`
	AccelWhy string `json:"accel_why,omitempty"`
	CPUs     int    `json:"cpus"`
	// Before is the use of the host before anything was started; nil where nobody looked.
	Before *Before `json:"before,omitempty"`
}

// Before is what the host was busy with before the start.
type Before struct {
	Busy  float64 `json:"busy"` // 0..1 of all CPUs
	Load1 float64 `json:"load1"`
}

// Cell is one combination with all its repeats.
type Cell struct {
	ID       string       `json:"id"`
	Sweep    string       `json:"sweep"`
	Workload string       `json:"workload"`
	Client   string       `json:"client"`
	Nodes    int          `json:"nodes"`
	Varied   []spec.Value `json:"varied"`
	// Skipped are the reasons why the cell cannot run here; Runs is then empty.
	Skipped []string `json:"skipped,omitempty"`
	Runs    []Run    `json:"runs"`
}

// Run is one repeat of a cell.
type Run struct {
	Repeat  int       `json:"repeat"`
	Started time.Time `json:"started"`
	// Discarded says why the run does not count (drifting clock, a node that died,
	// an error); "" if it does.
	Discarded string `json:"discarded,omitempty"`
	// Console is the end of the console of the guest that made it so.
	Console string `json:"console,omitempty"`
	Nodes   []Node `json:"nodes"`
	// WindowNS is the time in which all nodes ran; only it is counted. It begins
	// WindowAtNS after the earliest node's start.
	WindowAtNS int64 `json:"window_at_ns"`
	WindowNS   int64 `json:"window_ns"`
	// SpreadNS is between the first node's start and the last's.
	SpreadNS int64        `json:"start_spread_ns"`
	Host     monitor.Host `json:"host"`
	// HostText is what `w` or, without it, /proc/loadavg said right after.
	HostText string `json:"host_text,omitempty"`
	// Unsteady: the disk was to be preconditioned until steady, and never was.
	Unsteady bool     `json:"unsteady,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// Node is one client in one run.
type Node struct {
	Name string `json:"name"` // a, b, c …
	// OffsetNS is host clock minus node clock; DriftPPM by how much the node's clock
	// ran fast (+) or slow against the host's during the run.
	OffsetNS int64   `json:"clock_offset_ns"`
	DriftPPM float64 `json:"clock_drift_ppm"`
	// AtNS is the node's start after the earliest node's start, on the host's clock.
	AtNS   int64         `json:"at_ns"`
	Result *agent.Result `json:"result"`
	// Silent are times without a sign of life from the node's agent, as the host
	// saw them; At is since the earliest node's start.
	Silent []agent.Stall `json:"silent,omitempty"`
	// Window has the figures of the window alone, by direction.
	Window [3]Figures `json:"window"`
}

// Figures are rates and latencies within the window.
type Figures struct {
	IOs   uint64        `json:"ios"`
	Bytes uint64        `json:"bytes"`
	IOPS  float64       `json:"iops"`
	BW    float64       `json:"bw_bytes"`
	Lat   agent.Latency `json:"lat"` // with bins
}

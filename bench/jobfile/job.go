package jobfile

import (
	"strconv"
	"strings"
	"time"
)

// Directions of I/O; they index the per-direction arrays.
const (
	Read = iota
	Write
	Trim
	Dirs // their number
)

// DirNames are the directions as outputs name them.
var DirNames = [Dirs]string{"read", "write", "trim"}

// Mode is what rw= asks for.
type Mode struct {
	Read, Write, Trim bool
	Random            bool
	// Sequence is N of "randread:N": a new random place each N I/Os (>= 1).
	Sequence int64
	// Skip is N of "read:N": bytes added to each sequential offset; may be negative.
	Skip int64
}

// Has reports whether the mode does I/O in direction d.
func (m Mode) Has(d int) bool { return [Dirs]bool{m.Read, m.Write, m.Trim}[d] }

// String returns fio's name.
func (m Mode) String() string {
	name := "read"
	switch {
	case m.Read && m.Write:
		name = "rw"
	case m.Trim && m.Write:
		name = "trimwrite"
	case m.Write:
		name = "write"
	case m.Trim:
		name = "trim"
	}
	if m.Random {
		name = "rand" + name
	}
	return name
}

// BlockShare is one entry of bssplit.
type BlockShare struct {
	Size    int64
	Percent int
}

// Zone is one entry of random_distribution=zoned: Access percent of the I/O falls
// on the next Percent percent, or Size bytes, of the file.
type Zone struct {
	Access  int
	Percent int
	Size    int64 // bytes; 0 unless zoned_abs
}

// Distribution is what random_distribution asks for.
type Distribution struct {
	Kind   string // random, zipf, pareto, normal, zoned, zoned_abs, sequence
	Param  float64
	Center float64 // 0..1, -1 if not given
	Zones  [Dirs][]Zone
	Order  []int64 // sequence: block indices
}

// Job is one resolved job: one clone of one section. Times are durations, sizes
// bytes; a zero means that the option was not given or is off.
type Job struct {
	Name        string
	Pos         Pos
	Description string
	Clone       int // 0 .. numjobs-1
	Number      int // 1-based over the whole run
	Group       int // reporting group
	Phase       int // jobs of a phase run together, after all earlier phases

	Filenames      []string
	FilenameGiven  bool
	Directory      string
	FilenameFormat string
	FileService    string // roundrobin, sequential, random
	Files          int    // nrfiles
	Overwrite      bool
	AllowCreate    bool
	Unlink         bool
	CreateOnly     bool
	PreRead        bool
	AllowMounted   bool
	Invalidate     bool
	AdviceHint     string // fadvise_hint: none, type (by the job's order), random, sequential, noreuse
	Fallocate      string // none, native, posix, keep, truncate

	Mode             Mode
	MixRead          int // percent
	Sequencer        string
	BS               [Dirs]int64
	MinBS, MaxBS     [Dirs]int64
	Splits           [Dirs][]BlockShare
	Align            [Dirs]int64 // 0: MinBS
	BSUnaligned      bool
	BSIsSeqRand      bool
	Size             Amount
	IOSize           Amount
	FileSize         [2]Amount // low, high
	Offset           Amount
	OffsetAlign      int64
	OffsetIncrement  Amount
	ZoneMode         string // none, strided
	ZoneSize         int64  // bytes of I/O in a zone before the next one
	ZoneRange        int64  // bytes of a zone
	ZoneSkip         int64  // bytes between zones
	NumberIOs        int64
	FillDevice       bool
	NoRandomMap      bool
	Generator        string // tausworthe, tausworthe64, lfsr
	Distribution     Distribution
	SequenceStride   bool
	PercentRandom    [Dirs]int
	RandRepeat       bool
	RandSeed         uint64
	RandSeedGiven    bool
	Loops            int
	Runtime          time.Duration
	TimeBased        bool
	RampTime         time.Duration
	StartDelay       [2]time.Duration // low, high
	WaitFor          string
	ThinkTime        time.Duration
	ThinkSpin        time.Duration
	ThinkBlocks      int64
	ThinkIssue       bool // thinktime_blocks counts issued, not completed, I/O
	Rate             [Dirs]int64
	RateIOPS         [Dirs]int64
	RateMin          [Dirs]int64
	RateIOPSMin      [Dirs]int64
	RateCycle        time.Duration
	RatePoisson      bool
	RateIgnoresThink bool
	Offload          bool // io_submit_mode=offload: a rated job issues when it is time, whatever is in flight

	// Flow is the job's weight among the jobs of its FlowID: their I/O counts stay
	// in the proportion of the weights.
	Flow, FlowID int64
	FlowSleep    time.Duration

	Engine        string
	Depth         int
	DepthAsked    int
	Batch         int
	BatchMin      int
	BatchMax      int
	DepthLow      int
	Direct        bool
	Sync          string // "", sync, dsync
	Fsync         int64
	Fdatasync     int64
	EndFsync      bool
	FsyncOnClose  bool
	MaxLatency    time.Duration
	LatencyTarget time.Duration
	LatencyWindow time.Duration
	LatencyPct    float64
	LatencyRun    bool
	CPUs          []int
	CPUSplit      bool
	Hipri         bool // completions are polled for
	HipriShare    int  // percent of the I/Os of an engine that polls by calls

	Verify         string // "" none
	VerifyPattern  []byte
	VerifyInterval int64
	VerifyOffset   int64
	VerifyOnly     bool
	VerifyBacklog  int64
	VerifyBatch    int64
	DoVerify       bool
	VerifyFatal    bool
	VerifyDump     bool

	ZeroBuffers    bool
	RefillBuffers  bool
	Scramble       bool
	BufferPattern  []byte
	Compress       int // percent
	CompressChunk  int64
	Dedupe         int             // percent
	ContinueOn     map[string]bool // read, write, verify
	IgnoreError    [3][]string     // read, write, verify: errno names
	ExitAll        bool
	ExitAllOnError bool
	ExitWhat       string

	GroupReporting bool
	UnifiedRW      string // none, mixed, both
	Percentiles    []float64
	Precision      int // digits after the point
	Figures        int
	ClatPct        bool
	LatPct         bool
	SlatPct        bool
	NoLat          bool
	NoClat         bool
	NoSlat         bool
	NoBW           bool
	Stats          bool
	KBBase         int64
	UnitBase       int64

	BWLog, LatLog, IOPSLog, HistLog *string
	PerJobLogs                      bool
	LogAvg                          time.Duration
	LogHist                         time.Duration
	LogHistCoarse                   int
	LogMax                          bool
	LogOffset                       bool
	LogPrio                         bool
	LogUnixEpoch                    bool
	BWAvg, IOPSAvg                  time.Duration

	SteadyState *SteadyState

	// Options are the section's own options in the order they were given, for the
	// "job options" of a report; GlobalOptions those of the global sections.
	Options, GlobalOptions []KV
	// Load is the load level asked for by --set load=.
	Load string
}

// SteadyState is what ss= asks for.
type SteadyState struct {
	Metric   string  // iops, bw, lat
	Slope    bool    // slope instead of deviation
	Limit    float64 // absolute, or percent of the mean
	Percent  bool
	Duration time.Duration
	Ramp     time.Duration
}

// KV is one option as it was given.
type KV struct{ Key, Value string }

// SyncEngine reports whether fio runs this engine one I/O at a time.
func (j *Job) SyncEngine() bool { return engines[j.Engine].sync }

// PollsByCalls reports whether hipri polls in each call of this engine, rather
// than for all I/Os in flight.
func (j *Job) PollsByCalls() bool { return engines[j.Engine].polls == byCalls }

// Fixed returns the block size of direction d if there is only one, else 0.
func (j *Job) Fixed(d int) int64 {
	if j.MinBS[d] == j.MaxBS[d] {
		return j.MinBS[d]
	}
	return 0
}

// MinBlock returns the smallest block size over all directions that fio compares
// sizes with (all three, used or not).
func (j *Job) MinBlock() int64 { return min(j.MinBS[Read], j.MinBS[Write], j.MinBS[Trim]) }

// Describe renders the resolved job for --dry-run, one "option=value" each line.
func (j *Job) Describe() []KV {
	var out []KV
	add := func(k, v string) {
		if v != "" && v != "0" && v != "0s" && v != "false" {
			out = append(out, KV{k, v})
		}
	}
	per := func(v [Dirs]int64) string {
		if v[0] == v[1] && v[1] == v[2] {
			return strconv.FormatInt(v[0], 10)
		}
		return strconv.FormatInt(v[0], 10) + "," + strconv.FormatInt(v[1], 10) + "," + strconv.FormatInt(v[2], 10)
	}
	j.describePattern(add, per)
	j.describeRun(add, per)
	return out
}

func (j *Job) describePattern(add func(k, v string), per func([Dirs]int64) string) {
	add("phase", strconv.Itoa(j.Phase+1))
	add("group", strconv.Itoa(j.Group+1))
	add("filename", strings.Join(j.Filenames, ":"))
	add("ioengine", j.Engine)
	add("rw", j.Mode.String())
	if j.Mode.Read && j.Mode.Write {
		add("rwmixread", strconv.Itoa(j.MixRead))
	}
	add("bs", per(j.BS))
	if j.MinBS != j.BS || j.MaxBS != j.BS {
		add("bs_min", per(j.MinBS))
		add("bs_max", per(j.MaxBS))
	}
	for d, split := range j.Splits {
		var parts []string
		for _, s := range split {
			parts = append(parts, strconv.FormatInt(s.Size, 10)+"/"+strconv.Itoa(s.Percent))
		}
		add("bssplit_"+DirNames[d], strings.Join(parts, ":"))
	}
	add("size", j.Size.String())
	add("io_size", j.IOSize.String())
	add("offset", j.Offset.String())
	add("offset_increment", j.OffsetIncrement.String())
	if j.ZoneMode == "strided" {
		add("zonemode", j.ZoneMode)
		add("zonesize", strconv.FormatInt(j.ZoneSize, 10))
		add("zonerange", strconv.FormatInt(j.ZoneRange, 10))
		add("zoneskip", strconv.FormatInt(j.ZoneSkip, 10))
	}
	add("random_distribution", j.Distribution.Kind)
	add("norandommap", strconv.FormatBool(j.NoRandomMap))
}

func (j *Job) describeRun(add func(k, v string), per func([Dirs]int64) string) {
	add("iodepth", strconv.Itoa(j.Depth))
	add("direct", strconv.FormatBool(j.Direct))
	add("sync", j.Sync)
	add("hipri", strconv.FormatBool(j.Hipri))
	if j.Hipri && j.HipriShare < 100 {
		add("hipri_percentage", strconv.Itoa(j.HipriShare))
	}
	add("runtime", j.Runtime.String())
	add("time_based", strconv.FormatBool(j.TimeBased))
	add("ramp_time", j.RampTime.String())
	add("startdelay", j.StartDelay[0].String())
	add("loops", strconv.Itoa(j.Loops))
	add("rate", per(j.Rate))
	add("rate_iops", per(j.RateIOPS))
	add("thinktime", j.ThinkTime.String())
	add("fsync", strconv.FormatInt(j.Fsync, 10))
	add("fdatasync", strconv.FormatInt(j.Fdatasync, 10))
	add("end_fsync", strconv.FormatBool(j.EndFsync))
	add("verify", j.Verify)
}

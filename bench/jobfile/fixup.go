package jobfile

import (
	"errors"
	"fmt"
	"time"
)

// minHeader is the smallest verify block: header and checksum must fit.
func minHeader(kind string) int64 {
	if kind == "sha512" {
		return 192
	}
	return 128
}

// fixup checks the job as a whole and fills in what follows from other options,
// by fio's rules.
func (r *resolver) fixup(a *applier) error {
	j := a.job
	for _, f := range []func(*applier) error{r.fixBlocks, r.fixDepth, r.fixPolling, r.fixTimes, r.fixVerify, r.fixBuffers, r.fixZones} {
		if err := f(a); err != nil {
			return err
		}
	}
	if j.Distribution.Kind != "random" {
		j.NoRandomMap = true
	}
	return nil
}

func (r *resolver) fixBlocks(a *applier) error {
	j := a.job
	for d := range Dirs {
		if j.MinBS[d] == 0 {
			j.MinBS[d], j.MaxBS[d] = j.BS[d], j.BS[d]
		}
		if j.Mode.Random && j.Align[d] != 0 && j.Align[d] != j.MinBS[d] && !j.NoRandomMap {
			j.NoRandomMap = true
			r.note(j.Pos, false, "blockalign other than the block size turns the random map off")
		}
		if !j.Mode.Random || j.Align[d] == 0 {
			j.Align[d] = j.MinBS[d]
		}
	}
	if m := j.MinBlock(); j.Size.Bytes > 0 && j.Size.Bytes < m {
		return fmt.Errorf("size=%d is less than the block size %d", j.Size.Bytes, m)
	}
	if j.FillDevice && j.Size.IsZero() {
		j.Size = Amount{Percent: 100}
	}
	return nil
}

func (r *resolver) fixDepth(a *applier) error {
	j := a.job
	j.DepthAsked = j.Depth
	if j.SyncEngine() && j.Depth > 1 {
		r.note(j.Pos, false, fmt.Sprintf("ioengine %s does one I/O at a time: iodepth=%d is 1", j.Engine, j.Depth))
		j.Depth = 1
	}
	if j.DepthLow == 0 || j.DepthLow > j.Depth {
		j.DepthLow = j.Depth
	}
	if j.Batch == 0 || j.Batch > j.Depth {
		j.Batch = j.Depth
	}
	j.BatchMin = min(j.BatchMin, j.Depth)
	j.BatchMax = max(j.BatchMax, j.BatchMin)
	if j.LatencyTarget > 0 && j.LatencyWindow == 0 {
		j.LatencyWindow = 5 * time.Second
	}
	return nil
}

// fixPolling sees to hipri where it cannot be meant: fio takes the option for
// unknown under another engine, and fails I/O through the page cache that an engine
// would have to poll for.
func (r *resolver) fixPolling(a *applier) error {
	j := a.job
	polls, why := engines[j.Engine].polls, ""
	switch {
	case a.set["hipri_percentage"] && polls != byCalls:
		why = fmt.Sprintf("hipri_percentage: ioengine %s does not have it, only pvsync2", j.Engine)
	case j.Hipri && polls == noPolling:
		why = fmt.Sprintf("hipri: ioengine %s does not have it, only io_uring, pvsync2 and vmdisk", j.Engine)
	case j.Hipri && polls == byRing && !j.Direct:
		why = "hipri: only I/O past the page cache can be polled for; add direct=1"
	}
	if why != "" && r.p.Strict {
		return errors.New(why)
	}
	if why != "" {
		r.note(j.Pos, true, why+"; it has no effect")
	}
	j.Hipri = j.Hipri && polls != noPolling && (polls == byCalls || j.Direct) && j.HipriShare > 0
	return nil
}

func sum(v [Dirs]int64) int64 { return v[0] + v[1] + v[2] }

func (r *resolver) fixTimes(a *applier) error {
	j := a.job
	if j.TimeBased && j.Runtime == 0 {
		j.TimeBased = false
		r.note(j.Pos, true, "time_based needs a runtime; the job ends by size")
	}
	if sum(j.Rate)+sum(j.RateMin) > 0 && sum(j.RateIOPS)+sum(j.RateIOPSMin) > 0 {
		return errors.New("rate and rate_iops exclude each other")
	}
	for d := range Dirs {
		if j.Rate[d] > 0 && j.Rate[d] < j.RateMin[d] || j.RateIOPS[d] > 0 && j.RateIOPS[d] < j.RateIOPSMin[d] {
			return fmt.Errorf("the minimum %s rate is above the rate", DirNames[d])
		}
	}
	j.ThinkSpin = min(j.ThinkSpin, j.ThinkTime)
	if ss := j.SteadyState; ss != nil && ss.Duration == 0 {
		r.note(j.Pos, true, "steady state without ss_dur ends nothing")
	}
	return nil
}

func (r *resolver) fixVerify(a *applier) error {
	j := a.job
	if j.Verify == "" {
		return nil
	}
	if j.Mode.Trim {
		return errors.New("verify does not go with trims: a trimmed block promises no content")
	}
	if (j.Verify == "pattern" || j.Verify == "pattern_hdr") && len(j.VerifyPattern) == 0 {
		return fmt.Errorf("verify=%s needs verify_pattern", j.Verify)
	}
	if !a.set["refill_buffers"] {
		j.RefillBuffers = true
	}
	if err := fixInterval(j); err != nil {
		return err
	}
	if j.Mode.Write && j.DoVerify {
		r.warnVerify(a)
	}
	return nil
}

// fixInterval settles the size of verify blocks: a divisor of every block size.
func fixInterval(j *Job) error {
	lo, hi := j.MinBS[Write], j.MaxBS[Write]
	if !j.Mode.Write {
		lo, hi = j.MinBS[Read], j.MaxBS[Read]
	}
	if j.VerifyInterval == 0 && lo != hi {
		j.VerifyInterval = lo
	}
	j.VerifyInterval = min(j.VerifyInterval, lo)
	if j.VerifyInterval == 0 || lo%j.VerifyInterval != 0 || hi%j.VerifyInterval != 0 {
		j.VerifyInterval = gcd(lo, hi)
	}
	least := minHeader(j.Verify)
	if j.Verify != "pattern" && j.VerifyInterval < least {
		return fmt.Errorf("verify=%s needs blocks of at least %d bytes, not %d", j.Verify, least, j.VerifyInterval)
	}
	if j.VerifyOffset > 0 && j.VerifyOffset+least > j.VerifyInterval {
		return fmt.Errorf("verify_offset=%d puts the header beyond the block of %d bytes", j.VerifyOffset, j.VerifyInterval)
	}
	return nil
}

// warnVerify warns of checks that cannot come about or cannot succeed.
func (r *resolver) warnVerify(a *applier) {
	j := a.job
	if !j.Mode.Read && j.TimeBased && j.VerifyBacklog == 0 {
		r.note(j.Pos, true, "the verify phase never begins: time_based uses the whole runtime for writing")
	}
	if a.numJobs > 1 && (j.FilenameGiven || r.target) && j.OffsetIncrement.IsZero() {
		r.note(j.Pos, true, "several writers share one target: they may overwrite each other's blocks, and verification would fail")
	}
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (r *resolver) fixBuffers(a *applier) error {
	j := a.job
	if j.Compress == 100 {
		j.ZeroBuffers, j.Compress = true, 0
	}
	if (j.Compress > 0 || j.Dedupe > 0) && !a.set["refill_buffers"] {
		j.RefillBuffers = true
	}
	return nil
}

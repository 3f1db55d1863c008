package result

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// JSON writes fio's JSON, or JSON+ with the latency histograms. What fio does not
// have stands under "vmdisk" in each job and at the top.
func (r *Run) JSON(w io.Writer, plus bool) error {
	t := treeWriter{w: w}
	t.value(r.tree(plus), "")
	t.print("\n")
	return t.err
}

func (r *Run) tree(plus bool) object {
	end := r.Started.Add(r.Elapsed)
	var o object
	o.add("fio version", r.Version)
	o.add("timestamp", end.Unix())
	o.add("timestamp_ms", end.UnixMilli())
	o.add("time", end.Format(time.ANSIC))
	if len(r.Jobs) > 0 && len(r.Jobs[0].Spec.GlobalOptions) > 0 {
		o.add("global options", optionTree(r.Jobs[0].Spec.GlobalOptions))
	}
	var jobs []any
	groups := r.Groups()
	for _, j := range groups {
		jobs = append(jobs, r.jobTree(j, groups, plus))
	}
	o.add("jobs", jobs)
	var disks []any
	for _, d := range r.Disks {
		disks = append(disks, d.tree())
	}
	o.add("disk_util", disks)
	o.add("vmdisk", r.ownTree())
	return o
}

func optionTree(list []jobfile.KV) object {
	var o object
	for _, kv := range list {
		o.add(kv.Key, kv.Value)
	}
	return o
}

// jobOptions are the job's own, with those that consumers always look for.
func jobOptions(j *jobfile.Job) object {
	o := object{{"name", j.Name}}
	seen := map[string]bool{"name": true}
	for _, kv := range j.Options {
		if !seen[kv.Key] {
			o.add(kv.Key, kv.Value)
			seen[kv.Key] = true
		}
	}
	for _, kv := range []jobfile.KV{{Key: "rw", Value: j.Mode.String()}, {Key: "bs", Value: strconv.FormatInt(j.BS[0], 10)},
		{Key: "iodepth", Value: strconv.Itoa(j.DepthAsked)}, {Key: "numjobs", Value: numJobs(j)}} {
		if !hasKey(o, kv.Key) {
			o.add(kv.Key, kv.Value)
		}
	}
	return o
}

func hasKey(o object, key string) bool {
	for _, m := range o {
		if m.key == key {
			return true
		}
	}
	return false
}

func numJobs(j *jobfile.Job) string {
	for _, kv := range j.GlobalOptions {
		if kv.Key == "numjobs" {
			return kv.Value
		}
	}
	return "1"
}

func (r *Run) jobTree(j *Job, all []*Job, plus bool) object {
	var o object
	spec := j.Spec
	o.add("jobname", spec.Name)
	o.add("groupid", spec.Group)
	o.add("job_start", j.Started.UnixMilli())
	o.add("error", j.Errno)
	o.add("eta", 0)
	o.add("elapsed", int64((r.Elapsed+time.Second-1)/time.Second))
	if spec.Description != "" {
		o.add("desc", spec.Description)
	}
	o.add("job options", jobOptions(spec))
	for _, d := range j.reported(all) {
		o.add(d.name, d.tree(spec, d.aggregate, plus))
	}
	o.add("sync", object{{"total_ios", j.Syncs}, {"lat_ns", latTree(&j.Sync, spec, true, plus)}})
	o.add("job_runtime", j.Elapsed.Milliseconds())
	user, system := j.cpu()
	o.add("usr_cpu", user)
	o.add("sys_cpu", system)
	o.add("ctx", j.Switches)
	o.add("majf", j.Major)
	o.add("minf", j.Minor)
	o.add("iodepth_level", levels(depthNames, shares(j.Depth, j.ios())))
	o.add("iodepth_submit", levels(batchNames, shares(j.Submit, j.Submits)))
	o.add("iodepth_complete", levels(batchNames, shares(j.Complete, j.Completes)))
	ns, us, ms := j.latencyClasses()
	o.add("latency_ns", levels(nsNames, ns))
	o.add("latency_us", levels(nsNames, us))
	o.add("latency_ms", levels(msNames, ms))
	if len(spec.ContinueOn) > 0 {
		o.add("total_err", j.Errors)
		o.add("first_error", j.FirstErrno)
	}
	o.add("latency_depth", spec.Depth)
	// In nanoseconds, though the window is in microseconds: so fio has it.
	o.add("latency_target", spec.LatencyTarget.Nanoseconds())
	o.add("latency_percentile", spec.LatencyPct)
	o.add("latency_window", spec.LatencyWindow.Microseconds())
	if j.Steady != nil {
		o.add("steadystate", j.Steady.tree(spec.SteadyState))
	}
	o.add("vmdisk", j.ownTree())
	return o
}

func (s *Steady) tree(spec *jobfile.SteadyState) object {
	name := spec.Metric
	if spec.Slope {
		name += "_slope"
	}
	limit := strconv.FormatFloat(spec.Limit, 'f', 6, 64)
	if spec.Percent {
		limit += "%"
	}
	return object{{"ss", name + ":" + limit}, {"duration", int64(spec.Duration / time.Second)}, {"attained", b2i(s.Attained)},
		{"criterion", limit}, {"max_deviation", s.Deviation}, {"slope", s.Slope},
		{"data", object{{"iops", s.IOPS}, {"bw", s.BW}}}}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *Dir) tree(spec *jobfile.Job, aggregate float64, plus bool) object {
	var o object
	o.add("io_bytes", d.Bytes)
	o.add("io_kbytes", d.Bytes>>10)
	o.add("bw_bytes", uint64(d.BWBytes()))
	o.add("bw", uint64(d.BWBytes())>>10)
	o.add("iops", d.IOPSMean())
	o.add("runtime", d.Runtime.Milliseconds())
	o.add("total_ios", d.IOs)
	o.add("short_ios", d.Short)
	o.add("drop_ios", d.Dropped)
	o.add("slat_ns", latTree(&d.Slat, spec, spec.SlatPct, plus))
	o.add("clat_ns", latTree(&d.Clat, spec, spec.ClatPct, plus))
	o.add("lat_ns", latTree(&d.Lat, spec, spec.LatPct, plus))
	o.add("bw_min", int64(d.BW.Min))
	o.add("bw_max", int64(d.BW.Max))
	o.add("bw_agg", percentOf(d.BW.Mean(), aggregate/1024))
	o.add("bw_mean", d.BW.Mean())
	o.add("bw_dev", sqrt(d.BW.variance()))
	o.add("bw_samples", d.BW.N)
	o.add("iops_min", int64(d.IOPS.Min))
	o.add("iops_max", int64(d.IOPS.Max))
	o.add("iops_mean", d.IOPS.Mean())
	o.add("iops_stddev", sqrt(d.IOPS.variance()))
	o.add("iops_samples", d.IOPS.N)
	return o
}

func percentOf(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return min(100, part*100/whole)
}

// groupBW is the bandwidth of all jobs of a group in one direction, bytes per second.
func groupBW(all []*Job, group, dir int) float64 {
	sum := 0.0
	for _, j := range all {
		if j.Spec.Group == group {
			sum += j.Dirs[dir].BWBytes()
		}
	}
	return sum
}

func latTree(h *hist.Histogram, spec *jobfile.Job, percentiles, plus bool) object {
	o := object{{"min", h.Min()}, {"max", h.Max()}, {"mean", h.Mean()}, {"stddev", h.Stddev()}, {"N", h.N()}}
	if h.N() == 0 || !percentiles {
		return o
	}
	var p object
	for i, v := range h.Percentiles(spec.Percentiles) {
		p.add(strconv.FormatFloat(spec.Percentiles[i], 'f', 6, 64), v)
	}
	o.add("percentile", p)
	if plus {
		var b object
		for _, bin := range h.Bins() {
			b.add(strconv.FormatInt(bin.Value, 10), bin.Count)
		}
		o.add("bins", b)
	}
	return o
}

func levels(names []string, values []float64) object {
	var o object
	for i, n := range names {
		o.add(n, values[i])
	}
	return o
}

func (d *DiskUse) tree() object {
	return object{{"name", d.Name}, {"read_ios", d.IOs[0]}, {"write_ios", d.IOs[1]},
		{"read_sectors", d.Sectors[0]}, {"write_sectors", d.Sectors[1]},
		{"read_merges", d.Merges[0]}, {"write_merges", d.Merges[1]}, {"read_ticks", d.Ticks[0]}, {"write_ticks", d.Ticks[1]},
		{"in_queue", d.InQueue}, {"util", d.Util}}
}

// ownTree is what a job's result has beyond fio's.
func (j *Job) ownTree() object {
	var o object
	o.add("partial", j.Partial())
	if j.Err != nil {
		o.add("error", j.Err.Error())
	}
	count, longest, at := j.StallSummary()
	o.add("stalls", object{{"count", count}, {"longest_ms", ms(longest)}, {"longest_at_ms", ms(at)}})
	for d := range j.Dirs {
		if h := j.Dirs[d].Intended; h != nil && h.N() > 0 {
			o.add(jobfile.DirNames[d]+"_intended_lat_ns", latTree(h, j.Spec, true, false))
		}
	}
	var points []any
	for _, p := range j.Points {
		points = append(points, object{{"at_ms", p.At.Milliseconds()}, {"took_ms", ms(p.Took)},
			{"read", []any{p.IOs[0], p.Bytes[0]}}, {"write", []any{p.IOs[1], p.Bytes[1]}}, {"trim", []any{p.IOs[2], p.Bytes[2]}}})
	}
	o.add("points", points)
	return o
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (r *Run) ownTree() object {
	var o object
	o.add("target", r.Target)
	o.add("host", object{{"name", r.HostName}, {"kernel", r.Kernel}, {"cpus", r.CPUs}})
	o.add("started_ms", r.Started.UnixMilli())
	o.add("elapsed_ms", r.Elapsed.Milliseconds())
	var bounds []any
	for _, b := range r.Bounds {
		bounds = append(bounds, object{{"groupid", b.Group}, {"bound", b.What}, {"why", b.Why}})
	}
	o.add("bounds", bounds)
	var notes []any
	for _, n := range r.Notes {
		notes = append(notes, n.String())
	}
	o.add("notes", notes)
	if len(r.Samples) > 0 {
		var cells []any
		for _, c := range r.Samples {
			cells = append(cells, object{{"job", c.Job}, {"direction", c.Dir}, {"metric", c.Metric}, {"values", c.Values}})
		}
		o.add("samples", cells)
	}
	return o
}

// String sums up a disk's load in one line.
func (d DiskUse) String() string {
	return fmt.Sprintf("%s: ios=%d/%d, merge=%d/%d, ticks=%d/%d, in_queue=%d, util=%.2f%%", d.Name, d.IOs[0], d.IOs[1],
		d.Merges[0], d.Merges[1], d.Ticks[0], d.Ticks[1], d.InQueue, d.Util)
}

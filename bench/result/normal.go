package result

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Normal writes fio's human-readable output, then what vmdisk knows beyond it:
// stalls, latency from the intended time, and what limited each group.
func (r *Run) Normal(w io.Writer) error {
	var b bytes.Buffer
	groups := r.Groups()
	for _, j := range groups {
		j.normal(&b, groups, r)
	}
	last := -1
	for _, j := range groups {
		if j.Spec.Group != last {
			last = j.Spec.Group
			r.groupStatus(&b, last, groups)
		}
	}
	if s := unsteady(groups); s != "" {
		fmt.Fprintf(&b, "\n%s\n", s)
	}
	if len(r.Disks) > 0 {
		fmt.Fprintf(&b, "\nDisk stats (read/write):\n")
		for _, d := range r.Disks {
			fmt.Fprintf(&b, "  %s\n", d)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Header writes the lines that fio prints before a run.
func Header(w io.Writer, version string, jobs []*jobfile.Job) error {
	var b bytes.Buffer
	for _, j := range jobs {
		switch j.Clone {
		case 0:
			size := func(n int64) string { return number(uint64(n), j.Figures, j.KBBase == 1024, "B") }
			fmt.Fprintf(&b, "%s: (g=%d): rw=%s, bs=(R) %s-%s, (W) %s-%s, (T) %s-%s, ioengine=%s, iodepth=%d\n", j.Name, j.Group, j.Mode,
				size(j.MinBS[0]), size(j.MaxBS[0]), size(j.MinBS[1]), size(j.MaxBS[1]), size(j.MinBS[2]), size(j.MaxBS[2]), j.Engine, j.DepthAsked)
		case 1:
			b.WriteString("...\n")
		}
	}
	plural := "s"
	if len(jobs) == 1 {
		plural = ""
	}
	fmt.Fprintf(&b, "%s\nStarting %d thread%s\n", version, len(jobs), plural)
	_, err := w.Write(b.Bytes())
	return err
}

func (j *Job) normal(b *bytes.Buffer, all []*Job, r *Run) {
	if j.ios() == 0 && j.Err == nil {
		if j.Interrupted {
			fmt.Fprintf(b, "\n%s: (groupid=%d): not run, the run was interrupted\n", j.Spec.Name, j.Spec.Group)
		}
		return
	}
	failed := ""
	if j.Err != nil {
		failed = " (" + errorText(j.Err) + ")"
	}
	fmt.Fprintf(b, "\n%s: (groupid=%d, jobs=%d): err=%2d%s: pid=%d: %s\n", j.Spec.Name, j.Spec.Group, j.Merged, j.Errno, failed,
		j.Spec.Number, r.Started.Add(r.Elapsed).Format(time.ANSIC))
	if j.Partial() {
		fmt.Fprintf(b, "  PARTIAL      : the job ended before it was done; the figures cover what it did\n")
	}
	if j.Spec.Description != "" {
		fmt.Fprintf(b, "  Description  : [%s]\n", j.Spec.Description)
	}
	j.directions(b, all)
	j.classes(b)
	j.syncs(b)
	j.engine(b)
	j.beyond(b)
}

func (j *Job) directions(b *bytes.Buffer, all []*Job) {
	if j.Spec.UnifiedRW != "none" {
		mixed := j.mixed()
		mixed.normal(b, j.Spec, "mixed", groupBW(all, j.Spec.Group, 0)+groupBW(all, j.Spec.Group, 1)+groupBW(all, j.Spec.Group, 2))
		if j.Spec.UnifiedRW == "mixed" {
			return
		}
	}
	for d := range j.Dirs {
		if j.Dirs[d].Bytes > 0 {
			j.Dirs[d].normal(b, j.Spec, jobfile.DirNames[d], groupBW(all, j.Spec.Group, d))
		}
	}
}

// reported is one block of figures of a job: a direction's, or those of all together.
type reported struct {
	*Dir
	name      string
	aggregate float64 // bytes per second of all jobs of the group
}

// reported are the blocks that unified_rw_reporting asks for in JSON and terse output, in
// fio's order.
func (j *Job) reported(all []*Job) []reported {
	group := j.Spec.Group
	var out []reported
	if j.Spec.UnifiedRW != "mixed" {
		for d := range j.Dirs {
			out = append(out, reported{&j.Dirs[d], jobfile.DirNames[d], groupBW(all, group, d)})
		}
	}
	if j.Spec.UnifiedRW != "none" {
		out = append(out, reported{j.mixed(), "mixed", groupBW(all, group, 0) + groupBW(all, group, 1) + groupBW(all, group, 2)})
	}
	return out
}

// mixed sums all directions.
func (j *Job) mixed() *Dir {
	var m Dir
	for d := range j.Dirs {
		m.merge(&j.Dirs[d])
	}
	return &m
}

func (d *Dir) normal(b *bytes.Buffer, spec *jobfile.Job, name string, aggregate float64) {
	binary := spec.KBBase == 1024
	num := func(n uint64, bin bool, unit string) string { return number(n, spec.Figures, bin, unit) }
	bw, unit := uint64(d.BWBytes()), "B/s"
	if spec.UnitBase == 1 {
		bw, unit = bw*8, "bit/s"
	}
	post := ""
	if name == "write" {
		post = "; 0 zone resets"
	}
	fmt.Fprintf(b, "  %s: IOPS=%s, BW=%s (%s)(%s/%dmsec)%s\n", name, num(uint64(d.IOPSMean()), false, ""), num(bw, binary, unit),
		num(bw, !binary, unit), num(d.Bytes, binary, "B"), d.Runtime.Milliseconds(), post)
	latLine(b, "slat", &d.Slat)
	latLine(b, "clat", &d.Clat)
	latLine(b, " lat", &d.Lat)
	percentiles(b, "slat", &d.Slat, spec, spec.SlatPct)
	percentiles(b, "clat", &d.Clat, spec, spec.ClatPct)
	percentiles(b, "lat", &d.Lat, spec, spec.LatPct)
	if d.BW.N > 0 {
		scale, unit := 1.0, "KiB"
		if d.BW.Mean() > 1024*1024 {
			scale, unit = 1024, "MiB"
		}
		fmt.Fprintf(b, "   bw (%5s/s): min=%5.0f, max=%5.0f, per=%3.2f%%, avg=%5.02f, stdev=%5.02f, samples=%d\n", unit, d.BW.Min/scale, d.BW.Max/scale,
			percentOf(d.BW.Mean(), aggregate/1024), d.BW.Mean()/scale, sqrt(d.BW.variance())/scale, d.BW.N)
	}
	if d.IOPS.N > 0 {
		fmt.Fprintf(b, "   iops        : min=%5.0f, max=%5.0f, avg=%5.02f, stdev=%5.02f, samples=%d\n", d.IOPS.Min, d.IOPS.Max, d.IOPS.Mean(), sqrt(d.IOPS.variance()), d.IOPS.N)
	}
}

// latLine chooses the unit by fio's rule: the smaller one while anything would be
// lost by the larger.
func latLine(b *bytes.Buffer, name string, h *hist.Histogram) {
	if h.N() == 0 {
		return
	}
	unit, div := "nsec", 1.0
	switch dev := h.Stddev(); {
	case h.Min() > 2_000_000 && h.Max() > 99_999_999 && dev > 1_000_000:
		unit, div = "msec", 1e6
	case h.Min() > 2_000 && h.Max() > 99_999 && dev > 1_000:
		unit, div = "usec", 1e3
	}
	fmt.Fprintf(b, "    %s (%s): min=%s, max=%s, avg=%5.02f, stdev=%5.02f\n", name, unit, number(uint64(float64(h.Min())/div), 6, false, ""),
		number(uint64(float64(h.Max())/div), 6, false, ""), h.Mean()/div, h.Stddev()/div)
}

func percentiles(b *bytes.Buffer, name string, h *hist.Histogram, spec *jobfile.Job, want bool) {
	if h.N() == 0 || !want || len(spec.Percentiles) == 0 {
		return
	}
	values := h.Percentiles(spec.Percentiles)
	lo, hi := values[0], values[len(values)-1]
	unit, div := "nsec", int64(1)
	switch {
	case lo > 2_000_000 && hi > 99_999_999:
		unit, div = "msec", 1_000_000
	case lo > 2_000 && hi > 99_999:
		unit, div = "usec", 1_000
	}
	fmt.Fprintf(b, "    %s percentiles (%s):\n     |", name, unit)
	width := max(5, int(math.Log10(float64(max(hi/div, 1))))+1)
	perLine := max(1, (80-7)/(spec.Precision+10+width))
	for i, v := range values {
		if i > 0 && i%perLine == 0 {
			b.WriteString("\n     |")
		}
		fmt.Fprintf(b, " %*.*fth=[%*d]", spec.Precision+3, spec.Precision, spec.Percentiles[i], width, (v+div-1)/div)
		if i < len(values)-1 {
			b.WriteByte(',')
		}
	}
	b.WriteByte('\n')
}

func (j *Job) classes(b *bytes.Buffer) {
	ns, us, ms := j.latencyClasses()
	classLine(b, "nsec", nsNames, ns)
	classLine(b, "usec", nsNames, us)
	classLine(b, "msec", msNames, ms)
}

// classesPerLine is fio's.
const classesPerLine = 5

func classLine(b *bytes.Buffer, unit string, names []string, values []float64) {
	n := 0
	for i, v := range values {
		if v <= 0 {
			continue
		}
		if n%classesPerLine > 0 {
			b.WriteString(", ")
		} else {
			if n > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(b, "  lat (%s)   : ", unit)
		}
		fmt.Fprintf(b, "%s=%3.2f%%", names[i], v)
		n++
	}
	if n > 0 {
		b.WriteByte('\n')
	}
}

func (j *Job) syncs(b *bytes.Buffer) {
	if j.Sync.N() == 0 {
		return
	}
	b.WriteString("  fsync/fdatasync/sync_file_range:\n")
	latLine(b, "sync", &j.Sync)
	percentiles(b, "sync", &j.Sync, j.Spec, true)
}

func (j *Job) engine(b *bytes.Buffer) {
	user, system := j.cpu()
	fmt.Fprintf(b, "  cpu          : usr=%3.2f%%, sys=%3.2f%%, ctx=%d, majf=%d, minf=%d\n", user, system, j.Switches, j.Major, j.Minor)
	line := func(head string, names []string, values []float64) {
		b.WriteString(head)
		for i, n := range names {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(b, "%s=%3.1f%%", n, values[i])
		}
		b.WriteByte('\n')
	}
	line("  IO depths    : ", depthNames, shares(j.Depth, j.ios()))
	line("     submit    : ", batchNames, shares(j.Submit, j.Submits))
	line("     complete  : ", batchNames, shares(j.Complete, j.Completes))
	d := &j.Dirs
	fmt.Fprintf(b, "     issued rwts: total=%d,%d,%d,%d short=%d,%d,%d,0 dropped=%d,%d,%d,0\n", d[0].IOs, d[1].IOs, d[2].IOs, j.Syncs,
		d[0].Short, d[1].Short, d[2].Short, d[0].Dropped, d[1].Dropped, d[2].Dropped)
	if len(j.Spec.ContinueOn) > 0 {
		fmt.Fprintf(b, "     errors    : total=%d, first_error=%d\n", j.Errors, j.FirstErrno)
	}
	depth := j.Spec.Depth
	if j.LatencyDepth > 0 {
		depth = j.LatencyDepth
	}
	fmt.Fprintf(b, "     latency   : target=%d, window=%d, percentile=%.2f%%, depth=%d\n", j.Spec.LatencyTarget.Microseconds(),
		j.Spec.LatencyWindow.Microseconds(), j.Spec.LatencyPct, depth)
	if s := j.Steady; s != nil {
		fmt.Fprintf(b, "  steadystate  : attained=%v, deviation=%.2f, slope=%.4f\n", s.Attained, s.Deviation, s.Slope)
	}
}

// beyond writes what fio does not measure.
func (j *Job) beyond(b *bytes.Buffer) {
	for d := range j.Dirs {
		h := j.Dirs[d].Intended
		if h == nil || h.N() == 0 {
			continue
		}
		p := h.Percentiles([]float64{50, 99, 99.9})
		fmt.Fprintf(b, "  from intended: %s mean=%v, 50th=%v, 99th=%v, 99.9th=%v, max=%v\n", jobfile.DirNames[d], short(int64(h.Mean())), short(p[0]), short(p[1]), short(p[2]), short(h.Max()))
	}
	if from, ok := j.steadyFrom(); ok && from >= 0 {
		fmt.Fprintf(b, "  steady       : from %v on\n", short(int64(from)))
	}
	if n, longest, at := j.StallSummary(); n > 0 {
		fmt.Fprintf(b, "  stalls       : %d times no completion with I/O in flight; the longest %v, %v after the start\n", n, short(int64(longest)), short(int64(at)))
	}
}

// short rounds a duration to three figures.
func short(ns int64) time.Duration {
	d := time.Duration(ns)
	for unit := time.Duration(1); unit <= time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Minute)
}

func (r *Run) groupStatus(b *bytes.Buffer, group int, jobs []*Job) {
	fmt.Fprintf(b, "\nRun status group %d (all jobs):\n", group)
	names := [jobfile.Dirs]string{"   READ", "  WRITE", "   TRIM"}
	for d := range jobfile.Dirs {
		var sum, bytes uint64
		var lo, hi float64
		var loRun, hiRun time.Duration
		first := true
		var spec *jobfile.Job
		for _, j := range jobs {
			dir := &j.Dirs[d]
			if j.Spec.Group != group || dir.Bytes == 0 {
				continue
			}
			bw := dir.BWBytes()
			bytes += dir.Bytes
			sum += uint64(bw)
			if first {
				lo, hi, loRun, hiRun, first, spec = bw, bw, dir.Runtime, dir.Runtime, false, j.Spec
			}
			lo, hi = min(lo, bw), max(hi, bw)
			loRun, hiRun = min(loRun, dir.Runtime), max(hiRun, dir.Runtime)
		}
		if first {
			continue
		}
		// fio's aggregate is all bytes over the longest runtime.
		sum = uint64(rate(bytes, hiRun))
		bin := spec.KBBase == 1024
		num := func(v uint64, bin bool, unit string) string { return number(v, spec.Figures, bin, unit) }
		fmt.Fprintf(b, "%s: bw=%s (%s), %s-%s (%s-%s), io=%s (%s), run=%d-%dmsec\n", names[d], num(sum, bin, "B/s"), num(sum, !bin, "B/s"),
			num(uint64(lo), bin, "B/s"), num(uint64(hi), bin, "B/s"), num(uint64(lo), !bin, "B/s"), num(uint64(hi), !bin, "B/s"),
			num(bytes, bin, "B"), num(bytes, !bin, "B"), loRun.Milliseconds(), hiRun.Milliseconds())
	}
	for _, bound := range r.Bounds {
		if bound.Group == group {
			fmt.Fprintf(b, "  BOUND: %s: %s\n", bound.What, bound.Why)
		}
	}
}

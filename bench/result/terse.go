package result

import (
	"bytes"
	"fmt"
	"io"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// terseVersion is fio's default: semicolons, reads and writes, no trims.
const terseVersion = 3

// tersePercentiles is the fixed number of percentile fields.
const tersePercentiles = 20

// Terse writes fio's terse output, version 3, one line per job.
func (r *Run) Terse(w io.Writer) error { return r.TerseVersion(w, terseVersion) }

// TerseVersion writes the terse output of a version from 2 to 5: 2, 4 and 5 have trims,
// 2 has no program and no devices, and 5 has the samples of bandwidth and IOPS.
func (r *Run) TerseVersion(w io.Writer, version int) error {
	var b bytes.Buffer
	groups := r.Groups()
	for _, j := range groups {
		j.terse(&b, r, groups, version)
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (j *Job) terse(b *bytes.Buffer, r *Run, all []*Job, version int) {
	program := r.Version + ";"
	if version == 2 {
		program = ""
	}
	fmt.Fprintf(b, "%d;%s%s;%d;%d", version, program, j.Spec.Name, j.Spec.Group, j.Errno)
	for _, d := range j.reported(all) {
		if version == terseVersion && d.name == jobfile.DirNames[jobfile.Trim] {
			continue
		}
		d.terse(b, j.Spec, d.aggregate)
		if version == 5 {
			fmt.Fprintf(b, ";%d;%d;%d;%f;%f;%d", d.BW.N, int64(d.IOPS.Min), int64(d.IOPS.Max), d.IOPS.Mean(), sqrt(d.IOPS.variance()), d.IOPS.N)
		}
	}
	user, system := j.cpu()
	fmt.Fprintf(b, ";%f%%;%f%%;%d;%d;%d", user, system, j.Switches, j.Major, j.Minor)
	for _, v := range shares(j.Depth, j.ios()) {
		fmt.Fprintf(b, ";%3.1f%%", v)
	}
	ns, us, ms := j.latencyClasses()
	// There are no fields for less than a microsecond: fio counts those as 2 us.
	for _, v := range ns {
		us[0] += v
	}
	for _, v := range append(us, ms...) {
		fmt.Fprintf(b, ";%3.2f%%", v)
	}
	for _, d := range r.Disks {
		if version == 2 {
			break
		}
		fmt.Fprintf(b, ";%s;%d;%d;%d;%d;%d;%d;%d;%.2f%%", d.Name, d.IOs[0], d.IOs[1], d.Merges[0], d.Merges[1], d.Ticks[0], d.Ticks[1], d.InQueue, d.Util)
	}
	if len(j.Spec.ContinueOn) > 0 {
		fmt.Fprintf(b, ";%d;%d", j.Errors, j.FirstErrno)
	}
	if j.Spec.Description != "" {
		if version == 2 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, ";%s", j.Spec.Description)
	}
	b.WriteByte('\n')
}

func (d *Dir) terse(b *bytes.Buffer, spec *jobfile.Job, aggregate float64) {
	fmt.Fprintf(b, ";%d;%d;%d;%d", d.Bytes>>10, uint64(d.BWBytes())>>10, uint64(d.IOPSMean()), d.Runtime.Milliseconds())
	terseLat(b, &d.Slat)
	terseLat(b, &d.Clat)
	h := &d.Clat
	if spec.LatPct {
		h = &d.Lat
	}
	values := h.Percentiles(spec.Percentiles)
	for i := range tersePercentiles {
		if i >= len(values) || !spec.ClatPct && !spec.LatPct || h.N() == 0 {
			b.WriteString(";0%=0")
			continue
		}
		fmt.Fprintf(b, ";%f%%=%d", spec.Percentiles[i], values[i]/1000)
	}
	terseLat(b, &d.Lat)
	fmt.Fprintf(b, ";%d;%d;%f%%;%f;%f", int64(d.BW.Min), int64(d.BW.Max), percentOf(d.BW.Mean(), aggregate/1024), d.BW.Mean(), sqrt(d.BW.variance()))
}

func terseLat(b *bytes.Buffer, h *hist.Histogram) {
	fmt.Fprintf(b, ";%d;%d;%f;%f", h.Min()/1000, h.Max()/1000, h.Mean()/1000, h.Stddev()/1000)
}

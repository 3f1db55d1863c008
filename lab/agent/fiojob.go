package agent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// logOptions of a job file would change what this package reads of fio's logs.
var logOptions = []string{
	"write_bw_log", "write_iops_log", "write_lat_log", "write_hist_log", "log_avg_msec", "log_hist_msec", "per_job_logs",
	"log_offset", "log_alternate_epoch", "log_alternate_epoch_clock_id", "log_prio", "log_store_compressed", "log_compression",
}

// rewrite makes of a job file the one that fio gets. What wins stands at the end of every job
// section, where fio lets it win, and its other values are left out, global ones too:
// file names would add up. fio gets the values as the built-in engine reads them:
// without the blank that makes 4 bytes of "bs = 4k", and rw=randw in full.
// more are options that go into the sections of a phase, 0 being the first.
func rewrite(text string, plan *jobfile.Plan, options, disk []string, more func(phase int) []string) (string, error) {
	var p jobfile.Parser
	if err := p.Bytes("job file", []byte(text)); err != nil {
		return "", err
	}
	drop := append([]string{"filename", "directory", "rw"}, logOptions...)
	var win []string
	for _, o := range options {
		name, _, _ := strings.Cut(o, "=")
		if name = canonical(name); name == "load" {
			return "", fmt.Errorf("%s: fio has no option load: use engine=vmdisk, or iodepth=", o)
		}
		if !slices.Contains(drop, name) {
			win = append(win, o)
		}
	}
	win = slices.Concat(win, disk)
	for _, o := range win {
		name, _, _ := strings.Cut(o, "=")
		drop = append(drop, canonical(name))
	}
	var out strings.Builder
	for _, s := range p.Sections {
		fmt.Fprintf(&out, "[%s]\n", s.Name)
		for _, set := range s.Settings {
			if !slices.Contains(drop, canonical(set.Name)) {
				fmt.Fprintln(&out, fioSetting(set))
			}
		}
		if s.Global {
			continue
		}
		j := ofSection(plan, s)
		if j == nil {
			return "", fmt.Errorf("%s: section [%s] has no job", s.Pos, s.Name) // Resolve makes one of each
		}
		for _, o := range slices.Concat([]string{"rw=" + fioMode(j.Mode)}, win, more(j.Phase)) {
			fmt.Fprintln(&out, o)
		}
	}
	return out.String(), nil
}

func canonical(name string) string {
	name, _ = jobfile.Canonical(strings.TrimSpace(name))
	return name
}

func fioSetting(s jobfile.Setting) string {
	if !s.HasValue {
		return s.Name
	}
	return s.Name + "=" + strings.TrimSpace(s.Value)
}

// ofSection is the first job of a section.
func ofSection(plan *jobfile.Plan, s jobfile.Section) *jobfile.Job {
	i := slices.IndexFunc(plan.Jobs, func(j *jobfile.Job) bool { return j.Pos.Line == s.Pos.Line })
	if i < 0 {
		return nil
	}
	return plan.Jobs[i]
}

// fioMode is rw= with its suffix.
func fioMode(m jobfile.Mode) string {
	switch {
	case m.Random && m.Sequence > 1:
		return m.String() + ":" + strconv.FormatInt(m.Sequence, 10)
	case !m.Random && m.Skip != 0:
		return m.String() + ":" + strconv.FormatInt(m.Skip, 10)
	}
	return m.String()
}

// reported is one entry of fio's report: a job, or those of a group that are
// reported together.
type reported []*jobfile.Job

// reports are the entries in fio's order.
func reports(plan *jobfile.Plan) []reported {
	var all []reported
	for _, j := range plan.Jobs {
		if !j.Stats {
			continue
		}
		if n := len(all); n > 0 && j.GroupReporting && all[n-1][0].Group == j.Group {
			all[n-1] = append(all[n-1], j)
			continue
		}
		all = append(all, reported{j})
	}
	return all
}

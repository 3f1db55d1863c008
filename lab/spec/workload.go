package spec

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/diskurl"
)

// jobText is the name that a job's text has while it is read.
const jobText = "\x00job"

// jobOrigin is where a job's text was written.
type jobOrigin struct {
	file string
	line int // of the text's beginning; its first line is the next one
	each int // 1: a line of the text is one of the file; 0: all is on line
}

func (o jobOrigin) at(line int) Pos { return Pos{File: o.file, Line: o.line + o.each*line} }

// What a job file can have elsewhere and not in the lab, which hands it to other
// machines as it is.
var (
	errInclude = errors.New("the job file goes to other machines as it is: write the text of the include in its place")
	errEnv     = errors.New("the job file goes to other machines, which have other environment variables: write the value in place of ${…}")
)

// plan resolves the job file with options, which win. onDisk: the jobs work on a
// disk, not on files of a file system.
func (w *Workload) plan(options []string, onDisk bool) (*jobfile.Plan, error) {
	for i, line := range strings.Split(w.JobFile, "\n") {
		if text, _, _ := strings.Cut(line, "#"); strings.Contains(text, "${") {
			return nil, &jobfile.Error{Pos: jobfile.Pos{File: jobText, Line: i + 1}, Err: errEnv}
		}
	}
	p := jobfile.Parser{ReadFile: func(string) ([]byte, error) { return nil, errInclude }}
	if err := p.Bytes(jobText, []byte(w.JobFile)); err != nil {
		return nil, err
	}
	return p.Resolve(settings(options), onDisk)
}

func settings(options []string) []jobfile.Setting {
	var list []jobfile.Setting
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		list = append(list, jobfile.Setting{Name: name, Value: value, HasValue: true, Pos: jobfile.Pos{File: o}})
	}
	return list
}

// canonical is the first name of a fio option that has several.
func canonical(name string) string {
	name, _ = jobfile.Canonical(name)
	return name
}

// Workload returns the workload called name, nil if there is none.
func (s *Spec) Workload(name string) *Workload {
	for i := range s.Workloads {
		if s.Workloads[i].Name == name {
			return &s.Workloads[i]
		}
	}
	return nil
}

// WorkloadNames are the names of the workloads, in order.
func (s *Spec) WorkloadNames() []string {
	names := make([]string, len(s.Workloads))
	for i := range s.Workloads {
		names[i] = s.Workloads[i].Name
	}
	return names
}

// Runtime returns how long one run of the cell takes by its job file: start delays,
// ramp and run times, of all phases. 0: unknown, because a job ends by its size.
func (s *Spec) Runtime(c Cell) time.Duration {
	w := s.Workload(c.Workload)
	if w == nil {
		return 0
	}
	plan, err := w.plan(c.Options, c.FileSystem == noFileSystem)
	if err != nil {
		return 0 // Cells has said so
	}
	phases := map[int]time.Duration{}
	for _, j := range plan.Jobs {
		if j.Runtime == 0 {
			return 0
		}
		phases[j.Phase] = max(phases[j.Phase], j.StartDelay[1]+j.RampTime+j.Runtime)
	}
	var total time.Duration
	for _, d := range phases {
		total += d
	}
	return total
}

// fits checks that the jobs of a plan find room on a disk of size bytes.
func fits(plan *jobfile.Plan, size int64, fileSystem string) error {
	if fileSystem != noFileSystem {
		return filesFit(plan, size, fileSystem)
	}
	for _, j := range plan.Jobs {
		start := capped(j.Offset, size) + capped(j.OffsetIncrement, size)*int64(j.Clone)
		end := start + capped(j.Size, size)
		if j.Size.Percent > 0 || end <= size {
			continue // of what is there
		}
		advice := "--set disk=" + atLeast(end)
		if start < size {
			advice += ", or --set size=" + diskurl.FormatSize(size-start)
		}
		return fmt.Errorf("job %s reaches to byte %d of a disk of %s: %s", j.Name, end, diskurl.FormatSize(size), advice)
	}
	return nil
}

// filesFit does so where every clone of a job has a file of its own.
func filesFit(plan *jobfile.Plan, size int64, fileSystem string) error {
	room := size - size/10 // the rest is its journal and inodes, and root's 5 %
	names := map[string]int64{}
	for _, j := range plan.Jobs {
		each := max(capped(j.Size, room)/int64(max(j.Files, 1)), capped(j.FileSize[1], room))
		if each == 0 {
			return fmt.Errorf("job %s makes files on %s and needs their size: add size= to the job, or --set size=SIZE", j.Name, fileSystem)
		}
		for _, name := range j.Filenames {
			names[name] = max(names[name], each)
		}
	}
	var total int64
	for _, n := range names {
		total += n
	}
	if total <= room {
		return nil
	}
	return fmt.Errorf("the jobs' %d files take %s, a disk of %s with %s has room for %s: --set disk=%s, or --set size=%dM",
		len(names), diskurl.FormatSize(total), diskurl.FormatSize(size), fileSystem, diskurl.FormatSize(room), atLeast(total+total/8), room/int64(len(names))>>20)
}

// capped is an amount in bytes, at most just above the largest disk: sums of it
// cannot overflow.
func capped(a jobfile.Amount, size int64) int64 { return min(a.Of(size), 1<<50+1) }

// atLeast is a size of n bytes or more, in whole MiB.
func atLeast(n int64) string { return diskurl.FormatSize((n + 1<<20 - 1) &^ (1<<20 - 1)) }

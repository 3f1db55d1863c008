package jobfile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/suggest"
)

// defaults is a job as fio sees it before any option.
func defaults() Job {
	return Job{
		FilenameFormat: "$jobname.$jobnum.$filenum", FileService: "roundrobin", Files: 1, AllowCreate: true,
		Invalidate: true, AdviceHint: "type", Fallocate: "native", Mode: Mode{Read: true, Sequence: 1}, MixRead: 50, Sequencer: "sequential",
		BS: [Dirs]int64{4096, 4096, 4096}, Generator: "tausworthe", Distribution: Distribution{Kind: "random", Center: -1},
		PercentRandom: [Dirs]int{100, 100, 100}, RandRepeat: true, RandSeed: 0x89, Loops: 1, ThinkBlocks: 1,
		RateCycle: time.Second, Engine: "psync", Depth: 1, Batch: 1, BatchMin: 1, LatencyPct: 100,
		HipriShare: 100, DoVerify: true, Scramble: true, CompressChunk: 512, ExitWhat: "group", UnifiedRW: "none",
		Percentiles: slices.Clone(DefaultPercentiles), Precision: 2, Figures: 4, ClatPct: true, Stats: true, KBBase: 1024, PerJobLogs: true,
		BWAvg: 500 * time.Millisecond, IOPSAvg: 500 * time.Millisecond,
	}
}

// DefaultPercentiles is fio's list.
var DefaultPercentiles = []float64{1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99}

// Plan is what a run will do.
type Plan struct {
	Jobs  []*Job
	Notes []Note
}

// section-wide state of an applier that is no property of one clone.
type sectionState struct {
	numJobs             int
	stonewall, newGroup bool
	bareFlag            bool // the option being applied stood without "="
}

// Resolve applies the settings of the parser's sections and expands clones.
// overrides (--set) win over the sections. target reports that a disk is given
// from outside, so file names do not matter.
func (p *Parser) Resolve(overrides []Setting, target bool) (*Plan, error) {
	r := resolver{p: p, overrides: overrides, target: target, told: map[string]bool{}}
	var globals []Setting
	var claims []claim
	for i := range p.Sections {
		s := &p.Sections[i]
		if s.Global {
			globals = append(globals, s.Settings...)
			claims = append(claims, s.claims...)
			continue
		}
		if err := r.section(s, globals); err != nil {
			return nil, err
		}
		r.checkClaims(slices.Concat(claims, s.claims), r.plan.Jobs[len(r.plan.Jobs)-1])
	}
	if len(r.plan.Jobs) == 0 {
		return nil, errors.New("no jobs: a job file needs a [section] that is not [global], a command line --name=")
	}
	r.plan.Notes = append(slices.Clone(p.Notes), r.plan.Notes...)
	return &r.plan, nil
}

type resolver struct {
	p         *Parser
	overrides []Setting
	target    bool
	plan      Plan
	told      map[string]bool // notes given, by text
	phase     int
	group     int
}

// checkClaims warns of comments that contradict the mix; the options win.
func (r *resolver) checkClaims(claims []claim, j *Job) {
	for _, c := range claims {
		if j.Mode.Read && j.Mode.Write && c.reads != j.MixRead {
			r.note(c.pos, true, fmt.Sprintf("the comment says %d %% reads, rwmixread of job %s says %d %%; the option is followed", c.reads, j.Name, j.MixRead))
		}
	}
}

func (r *resolver) note(pos Pos, warning bool, text string) {
	key := pos.File + "\x00" + text
	if warning {
		key = pos.String() + "\x00" + text
	}
	if r.told[key] {
		return
	}
	r.told[key] = true
	r.plan.Notes = append(r.plan.Notes, Note{Pos: pos, Text: text, Warning: warning})
}

func (r *resolver) section(s *Section, globals []Setting) error {
	job := defaults()
	job.Name, job.Pos = s.Name, s.Pos
	a := applier{reader: reader{strict: r.p.Strict, kbBase: 1024}, job: &job, set: map[string]bool{}}
	a.numJobs = 1
	lists := [][]Setting{globals, s.Settings, r.overrides}
	if err := r.applyFirst(&a, lists); err != nil {
		return err
	}
	for i, list := range lists {
		for _, st := range list {
			if err := r.setting(&a, st); err != nil {
				return err
			}
			kv := KV{canonical(st.Name), strings.TrimSpace(st.Value)}
			if i == 0 {
				job.GlobalOptions = setKV(job.GlobalOptions, kv)
			} else {
				job.Options = setKV(job.Options, kv)
			}
		}
	}
	if err := r.fixup(&a); err != nil {
		return errAt(s.Pos, "job %s: %w", job.Name, err)
	}
	return r.expand(&a, s)
}

func setKV(list []KV, kv KV) []KV {
	list = slices.DeleteFunc(list, func(o KV) bool { return o.Key == kv.Key })
	return append(list, kv)
}

// applyFirst applies kb_base, which changes how all other values are read, and
// ioengine, whose refusal explains its private options.
func (r *resolver) applyFirst(a *applier, lists [][]Setting) error {
	for _, list := range lists {
		for _, st := range list {
			if st.Name == "kb_base" || st.Name == "ioengine" {
				if err := r.setting(a, st); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *resolver) setting(a *applier, st Setting) error {
	name := canonical(st.Name)
	o, ok := options[name]
	if !ok {
		return errAt(st.Pos, "unknown option %q%s", st.Name, suggested(st.Name))
	}
	switch {
	case o.refuse != "":
		return errAt(st.Pos, "option %s is refused: %s", st.Name, o.refuse)
	case o.note != "":
		r.note(st.Pos, false, fmt.Sprintf("option %s has no effect: %s", st.Name, o.note))
		return nil
	case !st.HasValue && !o.bare:
		return errAt(st.Pos, "option %s needs a value (%s=…)", st.Name, st.Name)
	}
	a.bareFlag = !st.HasValue
	value := st.Value
	if !st.HasValue {
		value = "1"
	}
	if !r.p.Strict && strings.HasPrefix(value, " ") {
		// fio's number reader meets the blank first; see multiplier.
		if trimmed := strings.TrimSpace(value); endsInUnit(trimmed) {
			r.note(st.Pos, true, fmt.Sprintf("fio reads %q after %s= without its unit; read here as %s", value, st.Name, trimmed))
		}
	}
	a.warn = func(format string, args ...any) {
		r.note(st.Pos, true, st.Name+": "+fmt.Sprintf(format, args...))
	}
	if !r.p.Strict {
		value = strings.TrimSpace(value)
	}
	if err := o.apply(a, value); err != nil {
		return errAt(st.Pos, "option %s: %w", st.Name, err)
	}
	a.set[name] = true
	return nil
}

// endsInUnit reports whether s is a number with a size suffix.
func endsInUnit(s string) bool {
	t := strings.TrimLeft(s, "0123456789")
	return t != s && t != "" && strings.IndexByte("kKmMgGtTpP", t[0]) >= 0
}

// expand appends the section's clones to the plan.
func (r *resolver) expand(a *applier, s *Section) error {
	job := a.job
	first := len(r.plan.Jobs) == 0
	wall := (a.stonewall || s.Wall) && !first
	if wall {
		r.phase++
	}
	if (wall || a.newGroup) && !first {
		r.group++
	}
	if err := r.checkWait(job); err != nil {
		return errAt(s.Pos, "job %s: %w", job.Name, err)
	}
	for i := range a.numJobs {
		if len(r.plan.Jobs) == maxJobs {
			return errAt(s.Pos, "more than %d jobs", maxJobs)
		}
		c := *job
		c.Clone, c.Number, c.Phase, c.Group = i, len(r.plan.Jobs)+1, r.phase, r.group
		if !c.FilenameGiven {
			c.Filenames = defaultNames(&c, s.Name)
		}
		if c.Directory != "" {
			c.Filenames = inDirectory(c.Directory, c.Filenames, i)
		}
		if c.CPUSplit && len(c.CPUs) > 0 {
			c.CPUs = c.CPUs[i%len(c.CPUs) : i%len(c.CPUs)+1]
		}
		r.plan.Jobs = append(r.plan.Jobs, &c)
	}
	return nil
}

func (r *resolver) checkWait(job *Job) error {
	if job.WaitFor == "" {
		return nil
	}
	for _, j := range r.plan.Jobs {
		if j.Name == job.WaitFor {
			return nil
		}
	}
	return fmt.Errorf("wait_for=%s names no earlier job", job.WaitFor)
}

// defaultNames are the file names of a job without filename=: the section's name
// if that is a device, else filename_format for each of nrfiles.
func defaultNames(j *Job, section string) []string {
	if st, err := os.Stat(section); j.Files == 1 && err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return []string{section}
	}
	var out []string
	for f := range j.Files {
		name := strings.NewReplacer("$jobname", strings.ReplaceAll(section, "/", "_"),
			"$jobnum", strconv.Itoa(j.Clone), "$filenum", strconv.Itoa(f), "$clientuid", "localhost").Replace(j.FilenameFormat)
		out = append(out, name)
	}
	return out
}

func inDirectory(dirs string, names []string, clone int) []string {
	list := SplitNames(dirs)
	if len(list) == 0 {
		return names
	}
	dir := list[clone%len(list)]
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = n
		if !filepath.IsAbs(n) {
			out[i] = filepath.Join(dir, n)
		}
	}
	return out
}

// suggested names the nearest option.
func suggested(name string) string {
	best := suggest.Nearest(name, slices.Sorted(maps.Keys(options)))
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// CheckOption reports whether one option can have a value, as far as that can be
// said without the rest of its job.
func CheckOption(name, value string) error {
	r := resolver{p: &Parser{}, told: map[string]bool{}}
	job := defaults()
	a := applier{reader: reader{kbBase: 1024}, job: &job, set: map[string]bool{}}
	err := r.setting(&a, Setting{Name: name, Value: value, HasValue: true})
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

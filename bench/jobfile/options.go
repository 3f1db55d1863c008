package jobfile

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// option is one row of the option table.
type option struct {
	// bare: the option may stand without "=value" and then means 1.
	bare bool
	// note, if not empty, makes the option accepted and without effect; the text
	// says why that changes no result. refuse makes it an error.
	note, refuse string
	apply        func(a *applier, value string) error
}

// applier applies settings to a job.
type applier struct {
	reader
	job *Job
	set map[string]bool // canonical names given so far
	sectionState
}

// aliases maps fio's second names to the first.
var aliases = map[string]string{
	"readwrite": "rw", "blocksize": "bs", "blockalign": "ba", "blocksize_range": "bsrange",
	"blocksize_unaligned": "bs_unaligned", "bsunaligned": "bs_unaligned", "nr_files": "nrfiles",
	"iodepth_batch_submit": "iodepth_batch", "iodepth_batch_complete": "iodepth_batch_complete_min",
	"io_limit": "io_size", "fill_fs": "fill_device", "fileoffset": "offset", "timeout": "runtime",
	"iomem": "mem", "mem_align": "iomem_align", "ratemin": "rate_min", "ratecycle": "rate_cycle",
	"wait_for_previous": "stonewall", "log_max_value": "log_window_value", "log_unix_epoch": "log_alternate_epoch",
	"disable_bw": "disable_bw_measurement", "steadystate": "ss", "steadystate_duration": "ss_dur",
	"steadystate_ramp_time": "ss_ramp", "ss_duration": "ss_dur", "ss_ramp_time": "ss_ramp",
	"allrandrepeat": "randrepeat", "steadystate_check_interval": "ss_check_interval", "ss_interval": "ss_check_interval", "data_placement": "dataplacement", "fdp_pli_select": "plid_select", "fdp_pli": "plids",
}

func canonical(name string) string {
	if a, ok := aliases[name]; ok {
		return a
	}
	return name
}

// TakesValue reports whether option name needs a value (an unknown one is taken to).
func TakesValue(name string) bool {
	o, ok := options[canonical(name)]
	return !ok || !o.bare
}

// OptionNames returns every option that has an effect, sorted.
func OptionNames() []string {
	var names []string
	for n, o := range options {
		if o.apply != nil {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

func isBool(p func(*Job) *bool) option {
	return option{apply: func(a *applier, s string) (err error) {
		*p(a.job), err = a.bool(s)
		return err
	}}
}

func isFlag(p func(*Job) *bool) option {
	o := isBool(p)
	o.bare = true
	return o
}

func isText(p func(*Job) *string) option {
	return option{apply: func(a *applier, s string) error {
		if *p(a.job) = strings.TrimSpace(s); *p(a.job) == "" {
			return fmt.Errorf("needs a value")
		}
		return nil
	}}
}

func isInt64(lo, hi int64, p func(*Job) *int64) option {
	return option{apply: func(a *applier, s string) error {
		v, err := a.int(firstOf(s))
		if err != nil {
			return err
		}
		if v < lo || v > hi {
			return fmt.Errorf("%d is not between %d and %d", v, lo, hi)
		}
		*p(a.job) = v
		return nil
	}}
}

func isInt(lo, hi int64, p func(*Job) *int) option {
	return option{apply: func(a *applier, s string) error {
		var v int64
		err := isInt64(lo, hi, func(*Job) *int64 { return &v }).apply(a, s)
		if err == nil {
			*p(a.job) = int(v)
		}
		return err
	}}
}

func firstOf(s string) string {
	first, _, _ := strings.Cut(s, ",")
	return first
}

func isAmount(p func(*Job) *Amount) option {
	return option{apply: func(a *applier, s string) (err error) {
		if strings.HasSuffix(strings.TrimSpace(s), "z") {
			return fmt.Errorf("sizes in zones (%s) need a zoned device, which is not served", s)
		}
		v, err := a.amount(s)
		if err == nil && v.Bytes < 0 {
			err = fmt.Errorf("%s is negative", s)
		}
		if err == nil {
			*p(a.job) = v
		}
		return err
	}}
}

func isTime(unit time.Duration, p func(*Job) *time.Duration) option {
	return option{apply: func(a *applier, s string) (err error) {
		*p(a.job), err = a.duration(s, unit)
		return err
	}}
}

func isEnum(p func(*Job) *string, values ...string) option {
	return option{apply: func(a *applier, s string) (err error) {
		*p(a.job), err = a.enum(s, values)
		return err
	}}
}

// isPerDir reads "a", "a,b" or "a,b,c": what is missing repeats the last given
// (fio's rule), and an empty field leaves the direction alone.
func isPerDir(lo int64, seps string, p func(*Job) *[Dirs]int64) option {
	return option{apply: func(a *applier, s string) error {
		return a.perDir(s, lo, seps, p(a.job))
	}}
}

func (a *applier) perDir(s string, lo int64, seps string, dst *[Dirs]int64) error {
	fields := splitDirs(s, seps)
	if len(fields) > Dirs {
		return fmt.Errorf("%q has more than %d values", s, Dirs)
	}
	for d := range Dirs {
		f := fields[min(d, len(fields)-1)]
		if strings.TrimSpace(f) == "" {
			continue
		}
		v, err := a.int(f)
		if err != nil {
			return err
		}
		if v < lo {
			return fmt.Errorf("%d is less than %d", v, lo)
		}
		dst[d] = v
	}
	return nil
}

// splitDirs splits at seps, but not inside parentheses and not before a leading sign.
func splitDirs(s, seps string) []string {
	s = strings.TrimSuffix(s, ",")
	var out []string
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case depth == 0 && strings.IndexByte(seps, c) >= 0 && (c != '-' || i > start):
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

func noted(why string) option   { return option{note: why, bare: true} }
func refused(why string) option { return option{refuse: why, bare: true} }

// Canonical returns an option's first name for a second one (bs for blocksize),
// and whether it is an option at all: one with an effect, one that is accepted
// with a note, or one that is refused with a reason.
func Canonical(name string) (string, bool) {
	name = canonical(name)
	_, known := options[name]
	return name, known
}

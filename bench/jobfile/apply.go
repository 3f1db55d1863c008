package jobfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var modes = map[string]Mode{
	"read": {Read: true}, "write": {Write: true}, "trim": {Trim: true},
	"rw": {Read: true, Write: true}, "readwrite": {Read: true, Write: true},
	"randread": {Read: true, Random: true}, "randwrite": {Write: true, Random: true}, "randtrim": {Trim: true, Random: true},
	"randrw":    {Read: true, Write: true, Random: true},
	"trimwrite": {Trim: true, Write: true}, "randtrimwrite": {Trim: true, Write: true, Random: true},
}

// modeNames is in the order that makes "randr" mean randread; an ambiguous
// prefix is refused, except that "randw" (before fio 2.0.12) meant randwrite.
var modeNames = []string{"read", "write", "trim", "rw", "readwrite", "randread", "randwrite", "randtrim", "randrw", "trimwrite", "randtrimwrite"}

func applyRW(a *applier, s string) error {
	name, arg, has := strings.Cut(strings.TrimSpace(s), ":")
	name, err := a.enum(name, modeNames)
	if err != nil {
		return err
	}
	m := modes[name]
	m.Sequence = 1
	if has && arg != "" {
		v, err := a.int(arg)
		if err != nil {
			return err
		}
		if m.Random && v < 1 {
			return fmt.Errorf("%s:%s: the number of I/Os between random places must be 1 or more", name, arg)
		}
		if m.Random {
			m.Sequence = v
		} else {
			m.Skip = v
		}
	}
	a.job.Mode = m
	return nil
}

func applyFilename(a *applier, s string) error {
	names := SplitNames(strings.TrimSpace(s))
	if len(names) == 0 {
		return errors.New("needs a file name")
	}
	a.job.Filenames, a.job.FilenameGiven = names, true
	return nil
}

// SplitNames splits fio's filename list at colons; "\:" is a colon of a name.
func SplitNames(s string) []string {
	var out []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			out = append(out, b.String())
			b.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ':':
			i++
			b.WriteByte(':')
		case s[i] == ':':
			flush()
		default:
			b.WriteByte(s[i])
		}
	}
	flush()
	return out
}

// applyAdvice reads fadvise_hint, which is a boolean or a kind of advice.
func applyAdvice(a *applier, s string) error {
	v, err := a.enum(s, []string{"none", "0", "type", "1", "random", "sequential", "noreuse"})
	switch v {
	case "0":
		v = "none"
	case "1":
		v = "type"
	}
	a.job.AdviceHint = v
	return err
}

func applyFileService(a *applier, s string) error {
	kind, arg, has := strings.Cut(strings.TrimSpace(s), ":")
	v, err := a.enum(kind, []string{"roundrobin", "sequential", "random", "zipf", "pareto", "normal", "gauss"})
	if err != nil {
		return err
	}
	switch v {
	case "zipf", "pareto", "normal", "gauss":
		return fmt.Errorf("%s is refused: files are chosen roundrobin, sequential or random", v)
	}
	if has && strings.TrimSpace(arg) != "1" {
		return fmt.Errorf("%s: the number of I/Os before the next file can only be 1", strings.TrimSpace(s))
	}
	a.job.FileService = v
	return nil
}

func applyFileSize(a *applier, s string) error {
	lo, hi, ranged := strings.Cut(s, "-")
	var err error
	if a.job.FileSize[0], err = a.amount(lo); err != nil {
		return err
	}
	a.job.FileSize[1] = a.job.FileSize[0]
	if ranged {
		a.job.FileSize[1], err = a.amount(hi)
	}
	if err == nil && a.job.FileSize[0].Bytes < 0 {
		err = fmt.Errorf("%s is negative", s)
	}
	return err
}

func applyMix(write bool) func(*applier, string) error {
	return func(a *applier, s string) error {
		v, err := a.int(firstOf(s))
		if err == nil && (v < 0 || v > 100) {
			err = fmt.Errorf("%d is not between 0 and 100", v)
		}
		if err != nil {
			return err
		}
		if write {
			v = 100 - v
		}
		a.job.MixRead = int(v)
		return nil
	}
}

// maxBlock bounds a block size: a buffer of it is allocated per I/O in flight.
const maxBlock = 1 << 30

func applyBS(a *applier, s string) error {
	if !a.strict && strings.Contains(strings.TrimSpace(s), "-") && !strings.Contains(s, "(") {
		a.warn("bs=%s is no range: reads are %s, writes and trims %s, as in fio; bsrange= is the range", strings.TrimSpace(s),
			strings.TrimSpace(strings.Split(s, "-")[0]), strings.TrimSpace(strings.Split(s, "-")[1]))
	}
	var v [Dirs]int64
	if err := a.perDir(s, 1, ",:-", &v); err != nil {
		return err
	}
	for d, n := range v {
		if n > maxBlock {
			return fmt.Errorf("%d bytes is more than %d", n, maxBlock)
		}
		if n > 0 {
			a.job.BS[d] = n
		}
	}
	return nil
}

func applyBSRange(a *applier, s string) error {
	fields := strings.Split(strings.TrimSuffix(s, ","), ",")
	if len(fields) > Dirs {
		return fmt.Errorf("%q has more than %d ranges", s, Dirs)
	}
	for d := range Dirs {
		f := fields[min(d, len(fields)-1)]
		lo, hi, ok := strings.Cut(f, "-")
		if !ok {
			lo, hi, ok = strings.Cut(f, ":")
		}
		if !ok {
			return fmt.Errorf("%q is no range (4k-16k)", f)
		}
		l, err := a.int(lo)
		if err != nil {
			return err
		}
		h, err := a.int(hi)
		if err != nil {
			return err
		}
		if l, h = min(l, h), max(l, h); l < 1 || h > maxBlock {
			return fmt.Errorf("%q is not between 1 and %d bytes", f, maxBlock)
		}
		a.job.MinBS[d], a.job.MaxBS[d] = l, h
	}
	return nil
}

func applyBSSplit(a *applier, s string) error {
	fields := strings.Split(strings.TrimSpace(s), ",")
	if len(fields) > Dirs {
		return fmt.Errorf("%q has more than %d lists", s, Dirs)
	}
	for d := range Dirs {
		shares, err := a.blockShares(fields[min(d, len(fields)-1)])
		if err != nil {
			return err
		}
		if len(shares) == 0 {
			continue
		}
		a.job.Splits[d] = shares
		a.job.MinBS[d], a.job.MaxBS[d] = shares[0].Size, shares[0].Size
		for _, sh := range shares {
			a.job.MinBS[d] = min(a.job.MinBS[d], sh.Size)
			a.job.MaxBS[d] = max(a.job.MaxBS[d], sh.Size)
		}
	}
	return nil
}

// blockShares reads "512/10:1k/5:4k". Entries without a percentage share what is
// left evenly, as in fio.
func (a *applier) blockShares(s string) ([]BlockShare, error) {
	var out []BlockShare
	sum, missing := 0, 0
	for entry := range strings.SplitSeq(s, ":") {
		if entry = strings.TrimSpace(entry); entry == "" {
			break
		}
		size, perc, has := strings.Cut(entry, "/")
		n, err := a.int(size)
		if err != nil {
			return nil, err
		}
		if n < 1 || n > maxBlock {
			return nil, fmt.Errorf("block size %d is not between 1 and %d", n, maxBlock)
		}
		p, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(perc), "%")))
		if has && (p < 0 || p > 100) {
			return nil, fmt.Errorf("%d %% is not between 0 and 100", p)
		}
		if p == 0 {
			p = -1
			missing++
		} else {
			sum += p
		}
		out = append(out, BlockShare{n, p})
	}
	if sum > 100 || missing == 0 && len(out) > 0 && sum < 100 && !a.strict {
		return nil, fmt.Errorf("the percentages of %q sum up to %d, not 100", s, sum)
	}
	for i := range out {
		if out[i].Percent < 0 {
			out[i].Percent = (100 - sum) / missing
		}
	}
	return out, nil
}

func applyPercentRandom(a *applier, s string) error {
	v := [Dirs]int64{100, 100, 100}
	if err := a.perDir(s, 0, ",:-", &v); err != nil {
		return err
	}
	for d, p := range v {
		if p > 100 {
			return fmt.Errorf("%d is more than 100", p)
		}
		a.job.PercentRandom[d] = int(p)
	}
	return nil
}

func applySeed(a *applier, s string) error {
	v, err := a.int(s)
	if err != nil {
		return err
	}
	a.job.RandSeed, a.job.RandSeedGiven = uint64(v), true
	return nil
}

func applyStartDelay(a *applier, s string) error {
	lo, hi, ranged := strings.Cut(s, "-")
	var err error
	if a.job.StartDelay[0], err = a.duration(lo, time.Second); err != nil {
		return err
	}
	a.job.StartDelay[1] = a.job.StartDelay[0]
	if ranged {
		a.job.StartDelay[1], err = a.duration(hi, time.Second)
	}
	if err == nil && a.job.StartDelay[1] < a.job.StartDelay[0] {
		err = fmt.Errorf("the range %s runs backwards", s)
	}
	return err
}

// maxJobs bounds the threads of one run.
const maxJobs = 4096

func applyNumJobs(a *applier, s string) error {
	v, err := a.int(firstOf(s))
	if err == nil && (v < 1 || v > maxJobs) {
		err = fmt.Errorf("%d is not between 1 and %d", v, maxJobs)
	}
	if err == nil {
		a.numJobs = int(v)
	}
	return err
}

func applySectionFlag(name string) func(*applier, string) error {
	return func(a *applier, s string) error {
		v, err := a.bool(s)
		if name == "stonewall" {
			a.stonewall = v
		} else {
			a.newGroup = v
		}
		return err
	}
}

func applyThinkType(a *applier, s string) error {
	v, err := a.enum(s, []string{"complete", "issue"})
	a.job.ThinkIssue = v == "issue"
	return err
}

func applyRateProcess(a *applier, s string) error {
	v, err := a.enum(s, []string{"linear", "poisson"})
	a.job.RatePoisson = v == "poisson"
	return err
}

func applySubmitMode(a *applier, s string) error {
	v, err := a.enum(s, []string{"inline", "offload"})
	a.job.Offload = v == "offload"
	return err
}

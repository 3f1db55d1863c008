package jobfile

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

func applyEngine(a *applier, s string) error {
	s = strings.TrimSpace(s)
	if err := checkEngine(s); err != nil {
		return err
	}
	a.job.Engine, _, _ = strings.Cut(s, ":")
	return nil
}

func applyBuffered(a *applier, s string) error {
	v, err := a.bool(s)
	a.job.Direct = !v
	return err
}

func applySync(a *applier, s string) error {
	v, err := a.enum(s, []string{"none", "0", "sync", "1", "dsync"})
	switch v {
	case "sync", "1":
		a.job.Sync = "sync"
	case "dsync":
		a.job.Sync = "dsync"
	default:
		a.job.Sync = ""
	}
	return err
}

func applyLatencyPct(a *applier, s string) error {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || v <= 0 || v > 100 {
		return fmt.Errorf("%q is not a percentage", s)
	}
	a.job.LatencyPct = v
	return nil
}

// maxCPU bounds a CPU number.
const maxCPU = 1024

func applyCPUs(a *applier, s string) error {
	var cpus []int
	for f := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == ':' || r == ' ' }) {
		lo, hi, ranged := strings.Cut(f, "-")
		l, err := strconv.Atoi(lo)
		h := l
		if err == nil && ranged {
			h, err = strconv.Atoi(hi)
		}
		if err != nil || l < 0 || h < l || h >= maxCPU {
			return fmt.Errorf("%q is no list of CPUs (0,2-3)", strings.TrimSpace(s))
		}
		for c := l; c <= h; c++ {
			if !slices.Contains(cpus, c) {
				cpus = append(cpus, c)
			}
		}
	}
	if len(cpus) == 0 {
		return errors.New("needs a list of CPUs (0,2-3)")
	}
	a.job.CPUs = cpus
	return nil
}

func applyCPUMask(a *applier, s string) error {
	v, err := a.int(s)
	if err != nil || v <= 0 {
		return fmt.Errorf("%q is no mask of CPUs", s)
	}
	a.job.CPUs = nil
	for m := uint64(v); m != 0; m &= m - 1 {
		a.job.CPUs = append(a.job.CPUs, bits.TrailingZeros64(m))
	}
	return nil
}

func applyCPUPolicy(a *applier, s string) error {
	v, err := a.enum(s, []string{"shared", "split"})
	a.job.CPUSplit = v == "split"
	return err
}

func applyContinue(a *applier, s string) error {
	v, err := a.enum(s, []string{"none", "read", "write", "io", "verify", "all", "0", "1"})
	a.job.ContinueOn = map[string]bool{}
	for _, k := range map[string][]string{
		"read": {"read"}, "write": {"write"}, "io": {"read", "write"}, "verify": {"verify"},
		"all": {"read", "write", "verify"}, "1": {"read", "write", "verify"},
	}[v] {
		a.job.ContinueOn[k] = true
	}
	return err
}

// applyIgnoreError reads "EIO:ENOSPC,EIO": read, write and verify lists.
func applyIgnoreError(a *applier, s string) error {
	lists := strings.Split(strings.TrimSpace(s), ",")
	if len(lists) > 3 {
		return fmt.Errorf("%q has more than 3 lists (read, write, verify)", s)
	}
	for i, l := range lists {
		a.job.IgnoreError[i] = SplitNames(l)
	}
	return nil
}

// verifyNames maps fio's names; crc32c-intel is crc32c, pattern_hdr has headers.
var verifyNames = map[string]string{
	"0": "", "none": "", "crc32c": "crc32c", "crc32c-intel": "crc32c", "crc32": "crc32", "crc16": "crc16", "crc7": "crc7", "crc64": "crc64",
	"md5": "md5", "sha1": "sha1", "sha256": "sha256", "sha512": "sha512",
	"sha3-224": "sha3-224", "sha3-256": "sha3-256", "sha3-384": "sha3-384", "sha3-512": "sha3-512", "xxhash": "xxhash", "meta": "meta", "pattern": "pattern", "pattern_hdr": "pattern_hdr",
	"null": "null",
}

func applyVerify(a *applier, s string) error {
	s = strings.TrimSpace(s)
	v, ok := verifyNames[s]
	if !ok {
		return fmt.Errorf("unknown kind %q (%s)", s, strings.Join(slices.Sorted(maps.Keys(verifyNames)), ", "))
	}
	a.job.Verify = v
	return nil
}

func applyUnified(a *applier, s string) error {
	v, err := a.enum(s, []string{"none", "mixed", "both", "0", "1", "2"})
	a.job.UnifiedRW = map[string]string{"0": "none", "1": "mixed", "2": "both"}[v]
	if a.job.UnifiedRW == "" {
		a.job.UnifiedRW = v
	}
	return err
}

// maxPercentiles is the length of fio's list.
const maxPercentiles = 20

func applyPercentiles(a *applier, s string) error {
	fields := strings.Split(strings.TrimSpace(s), ":")
	if len(fields) > maxPercentiles {
		return fmt.Errorf("more than %d percentiles", maxPercentiles)
	}
	a.job.Percentiles, a.job.Precision = nil, 0
	for _, f := range fields {
		f = strings.TrimSpace(f)
		v, err := strconv.ParseFloat(f, 64)
		if err != nil || v <= 0 || v > 100 {
			return fmt.Errorf("%q is no percentile (0 to 100)", f)
		}
		a.job.Percentiles = append(a.job.Percentiles, v)
		if _, frac, ok := strings.Cut(f, "."); ok {
			a.job.Precision = max(a.job.Precision, len(frac))
		}
	}
	slices.Sort(a.job.Percentiles)
	return nil
}

func applyGtodReduce(a *applier, s string) error {
	v, err := a.bool(s)
	if v {
		a.job.NoLat, a.job.NoClat, a.job.NoSlat, a.job.NoBW = true, true, true, true
	}
	return err
}

func applyKBBase(a *applier, s string) error {
	v, err := a.enum(s, []string{"1024", "1000"})
	if err == nil {
		a.kbBase, _ = strconv.ParseInt(v, 10, 64)
		a.job.KBBase = a.kbBase
	}
	return err
}

// applyLog: the name is optional; without one the job's name is used.
func applyLog(p func(*Job) **string) func(*applier, string) error {
	return func(a *applier, s string) error {
		s = strings.TrimSpace(s)
		if s == "1" && a.bareFlag {
			s = ""
		}
		*p(a.job) = &s
		return nil
	}
}

func applyLogWindow(a *applier, s string) error {
	v, err := a.enum(s, []string{"avg", "max", "both", "0", "1"})
	if v == "both" {
		return errors.New("both is refused: a log holds the average or the maximum of a window")
	}
	a.job.LogMax = v == "max" || v == "1"
	return err
}

// loads are the load levels of Intel's IOMeter file-server pattern.
var loads = map[string]int{"linear": 1, "very-light": 4, "light": 8, "moderate": 64, "heavy": 256}

func applyLoad(a *applier, s string) error {
	v, err := a.enum(s, []string{"linear", "very-light", "light", "moderate", "heavy"})
	if err == nil {
		a.job.Load, a.job.Depth = v, loads[v]
	}
	return err
}

func (a *applier) steady() *SteadyState {
	if a.job.SteadyState == nil {
		a.job.SteadyState = &SteadyState{Metric: "iops", Slope: true, Limit: 0.01, Percent: true}
	}
	return a.job.SteadyState
}

func applySteady(a *applier, s string) error {
	kind, limit, has := strings.Cut(strings.TrimSpace(s), ":")
	v, err := a.enum(kind, []string{"iops", "iops_slope", "bw", "bw_slope", "lat", "lat_slope"})
	if err != nil {
		return err
	}
	ss := a.steady()
	ss.Metric, ss.Slope = strings.TrimSuffix(v, "_slope"), strings.HasSuffix(v, "_slope")
	if !has {
		return nil
	}
	num, percent := strings.CutSuffix(limit, "%")
	if ss.Percent = percent; percent {
		ss.Limit, err = strconv.ParseFloat(num, 64)
	} else {
		var n int64
		n, err = a.int(num)
		ss.Limit = float64(n)
	}
	if err != nil || ss.Limit < 0 {
		return fmt.Errorf("%q is no limit", limit)
	}
	return nil
}

func applySteadyTime(p func(*SteadyState) *time.Duration) func(*applier, string) error {
	return func(a *applier, s string) (err error) {
		*p(a.steady()), err = a.duration(s, time.Second)
		return err
	}
}

// maxPattern is fio's longest pattern in bytes.
const maxPattern = 512

func applyPattern(p func(*Job) *[]byte) func(*applier, string) error {
	return func(a *applier, s string) error {
		b, err := parsePattern(strings.TrimSpace(s))
		if err == nil {
			*p(a.job) = b
		}
		return err
	}
}

// parsePattern reads fio's pattern: "string"s, 0x numbers (bytes in the order
// written), decimal numbers (little endian, as few bytes as hold them), 'file'.
func parsePattern(s string) ([]byte, error) {
	var out []byte
	for s != "" {
		var part []byte
		var err error
		switch {
		case s[0] == '"':
			end := strings.IndexByte(s[1:], '"')
			if end < 0 {
				return nil, errors.New("string without a closing quote")
			}
			part, s = []byte(s[1:1+end]), s[2+end:]
		case s[0] == '\'':
			return nil, errors.New("a pattern from a file is refused: write it as 0x… or \"…\"")
		case s[0] == '%':
			return nil, errors.New("formatted patterns (%o) are refused")
		case strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X"):
			part, s, err = hexPattern(s[2:])
		default:
			part, s, err = decimalPattern(s)
		}
		if err != nil {
			return nil, err
		}
		if out = append(out, part...); len(out) > maxPattern {
			return nil, fmt.Errorf("longer than %d bytes", maxPattern)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("needs a pattern")
	}
	return out, nil
}

func hexPattern(s string) (part []byte, rest string, err error) {
	n := 0
	for n < len(s) && isHex(s[n]) {
		n++
	}
	if n == 0 {
		return nil, "", errors.New("0x without digits")
	}
	digits := s[:n]
	if n%2 == 1 {
		digits = "0" + digits
	}
	for i := 0; i < len(digits); i += 2 {
		v, _ := strconv.ParseUint(digits[i:i+2], 16, 8)
		part = append(part, byte(v))
	}
	return part, s[n:], nil
}

func decimalPattern(s string) (part []byte, rest string, err error) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || n == 0 && s[n] == '-') {
		n++
	}
	v, err := strconv.ParseInt(s[:n], 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("%q is no pattern (\"text\", 0xhex or a number)", s)
	}
	u := uint32(v)
	for {
		part = append(part, byte(u))
		if u >>= 8; u == 0 {
			return part, s[n:], nil
		}
	}
}

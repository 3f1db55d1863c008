package result

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
)

var (
	depthNames = []string{"1", "2", "4", "8", "16", "32", ">=64"}
	batchNames = []string{"0", "4", "8", "16", "32", "64", ">=64"}
	nsNames    = []string{"2", "4", "10", "20", "50", "100", "250", "500", "750", "1000"}
	msNames    = []string{"2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"}
)

func sqrt(v float64) float64 { return math.Sqrt(v) }

// ios is the number of reads, writes and trims.
func (j *Job) ios() uint64 { return j.Dirs[0].IOs + j.Dirs[1].IOs + j.Dirs[2].IOs }

// cpu returns the job's user and system time in percent of its runtime.
func (j *Job) cpu() (user, system float64) {
	if j.Elapsed == 0 {
		return 0, 0
	}
	return float64(j.User) * 100 / float64(j.Elapsed), float64(j.System) * 100 / float64(j.Elapsed)
}

// shares turns counts into percent of total. Like fio's, a share that is not zero
// is at least 0.1.
func shares(counts [7]uint64, total uint64) []float64 {
	out := make([]float64, len(counts))
	for i, c := range counts {
		if c > 0 && total > 0 {
			out[i] = max(0.1, float64(c)*100/float64(total))
		}
	}
	return out
}

// latencyClasses are fio's shares of completion latencies by decade: below 1000
// ns, below 1000 us, and above, each in percent of all.
func (j *Job) latencyClasses() (ns, us, ms []float64) {
	var all hist.Histogram
	for d := range j.Dirs {
		all.Merge(&j.Dirs[d].Clat)
	}
	var limits []int64
	for _, list := range []struct {
		names []string
		unit  int64
	}{{nsNames, 1}, {nsNames, 1000}, {msNames[:11], 1000000}} {
		for _, n := range list.names {
			v, _ := strconv.ParseInt(n, 10, 64)
			limits = append(limits, v*list.unit)
		}
	}
	d := all.Distribution(limits)
	return d[:10], d[10:20], d[20:]
}

// StallSummary returns how many stalls there were, and the longest.
func (j *Job) StallSummary() (count int, longest, at time.Duration) {
	for _, s := range j.Stalls {
		if s.Took > longest {
			longest, at = s.Took, s.At
		}
	}
	return len(j.Stalls) + j.StallsLost, longest, at
}

// number writes n with at most `figures` characters and a unit prefix: powers of
// 1024 with Ki and so on, or of 1000 with k.
func number(n uint64, figures int, binary bool, unit string) string {
	base, prefixes := 1000.0, []string{"", "k", "M", "G", "T", "P", "E"}
	if binary {
		base, prefixes = 1024, []string{"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"}
	}
	v := float64(n)
	i := 0
	for i < len(prefixes)-1 && len(strconv.FormatUint(uint64(v), 10)) > figures {
		v /= base
		i++
	}
	if i == 0 {
		return strconv.FormatUint(n, 10) + unit
	}
	digits := figures - len(strconv.FormatUint(uint64(v), 10)) - 1
	if digits < 1 {
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64) + prefixes[i] + unit
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + prefixes[i] + unit
}

// errorText is an error in one line, without what separates fields elsewhere.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

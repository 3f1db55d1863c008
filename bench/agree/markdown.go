package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/stat"
)

// markdown writes a table of docs/benchmarking.md: a line for each job and direction.
func markdown(w io.Writer, rows []*Row, rounds int, title string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d rounds, %s.\n\n", verdict(rows), rounds, title)
	b.WriteString("| job | direction | I/Os, both | IOPS, fio | vmdisk | off % | fio's noise % | mean µs, fio | vmdisk | p50 µs, fio | vmdisk | p99 off % | fio's noise % | max ms, fio | vmdisk | agree |\n")
	b.WriteString("|" + strings.Repeat("---|", 16) + "\n")
	var done []string
	for _, r := range rows {
		key := r.Job + "\x00" + r.Dir
		if slices.Contains(done, key) {
			continue
		}
		done = append(done, key)
		line(&b, rows, r.Job, r.Dir)
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

func line(b *strings.Builder, rows []*Row, job, dir string) {
	find := func(metric string) *Row {
		i := slices.IndexFunc(rows, func(r *Row) bool { return r.Job == job && r.Dir == dir && r.Metric == metric })
		if i < 0 {
			return &Row{}
		}
		return rows[i]
	}
	mid := func(v []float64) float64 { return stat.Summarize(v).Median }
	iops, mean, p50, p99, longest := find("iops"), find("lat_mean"), find("lat_p50"), find("lat_p99"), find("lat_max")
	count := "differ"
	if n := find("I/Os"); n.timed {
		count = "by time"
	} else if n.Agree && find("bytes").Agree {
		count = fmt.Sprintf("%.0f", mid(n.Ours))
	}
	fmt.Fprintf(b, "| %s | %s | %s | %.0f | %.0f | %.1f | %.1f | %.2f | %.2f | %.2f | %.2f | %.1f | %.1f | %.1f | %.1f | %s |\n", job, dir, count,
		mid(iops.Fio), mid(iops.Ours), iops.Off*100, iops.Noise*100, mid(mean.Fio)/1e3, mid(mean.Ours)/1e3,
		mid(p50.Fio)/1e3, mid(p50.Ours)/1e3, p99.Off*100, p99.Noise*100, mid(longest.Fio)/1e6, mid(longest.Ours)/1e6, agreement(rows, job, dir))
}

// agreement names the figures of a line that do not agree.
func agreement(rows []*Row, job, dir string) string {
	var not []string
	for _, r := range rows {
		if r.Job == job && r.Dir == dir && !r.Agree {
			not = append(not, r.Metric)
		}
	}
	if not == nil {
		return "yes"
	}
	return "not " + strings.Join(not, ", ")
}

// verdict is the goal in one line.
func verdict(rows []*Row) string {
	agree, exact, counts := 0, 0, 0
	for _, r := range rows {
		if r.Agree {
			agree++
		}
		if r.exact() {
			counts++
			if r.Agree {
				exact++
			}
		}
	}
	word := "MISSED"
	if agree == len(rows) {
		word = "met"
	}
	return fmt.Sprintf("%s: %d of %d figures agree with fio, %d of %d counts of I/Os and bytes among them are equal", word, agree, len(rows), exact, counts)
}

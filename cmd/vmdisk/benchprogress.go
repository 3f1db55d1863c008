package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/bench/engine"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// benchProgress shows the state of a run: one line that is rewritten, or a line of
// JSON each time.
type benchProgress struct {
	w     io.Writer
	mode  string
	modes string // fio's letters for the jobs
	width int    // of the last line

	newline, interval time.Duration // --eta-newline, --eta-interval
	lined, shown      time.Duration // when that was last
}

func newBenchProgress(w io.Writer, mode string, plan *jobfile.Plan) *benchProgress {
	p := &benchProgress{w: w, mode: mode}
	if mode == "auto" {
		p.mode = "none"
		if isTerminal(w) {
			p.mode = "bar"
		}
	}
	counts := map[string]int{}
	var order []string
	for _, j := range plan.Jobs {
		l := modeLetter(j.Mode)
		if counts[l] == 0 {
			order = append(order, l)
		}
		counts[l]++
	}
	for i, l := range order {
		if i > 0 {
			p.modes += ","
		}
		p.modes += fmt.Sprintf("%s(%d)", l, counts[l])
	}
	return p
}

// modeLetter is fio's: lower case is random.
func modeLetter(m jobfile.Mode) string {
	l := "R"
	switch {
	case m.Read && m.Write:
		l = "M"
	case m.Trim:
		l = "D"
	case m.Write:
		l = "W"
	}
	if m.Random {
		l = strings.ToLower(l)
	}
	return l
}

type benchStep struct {
	ElapsedMS int64      `json:"elapsed_ms"`
	ETAMS     int64      `json:"eta_ms"` // -1: unknown
	Percent   float64    `json:"percent"`
	Phase     int        `json:"phase"`
	Running   int        `json:"running"`
	BW        [3]float64 `json:"bytes_per_second"` // read, write, trim
	IOPS      [3]float64 `json:"iops"`
	StalledMS int64      `json:"stalled_ms"`
}

func (p *benchProgress) show(s engine.Status) {
	switch p.mode {
	case "json":
		eta := int64(-1)
		if s.ETA >= 0 {
			eta = s.ETA.Milliseconds()
		}
		b, err := json.Marshal(benchStep{s.Elapsed.Milliseconds(), eta, s.Share * 100, s.CurrentPhase, s.Running, s.BW, s.IOPS, s.StalledFor.Milliseconds()})
		if err == nil {
			fmt.Fprintf(p.w, "%s\n", b)
		}
	case "bar":
		if p.interval > 0 && s.Elapsed-p.shown < p.interval-50*time.Millisecond {
			return
		}
		p.shown = s.Elapsed
		if p.newline > 0 && p.width > 0 && s.Elapsed-p.lined >= p.newline {
			p.lined, p.width = s.Elapsed, 0
			fmt.Fprintln(p.w)
		}
		line := p.line(s)
		fmt.Fprintf(p.w, "\r%-*s", p.width, line)
		p.width = len(line)
	}
}

func (p *benchProgress) line(s engine.Status) string {
	var bw, iops []string
	for d, l := range []string{"r", "w", "t"} {
		if s.IOPS[d] > 0 {
			bw = append(bw, fmt.Sprintf("%s=%.1fMiB/s", l, s.BW[d]/(1<<20)))
			iops = append(iops, fmt.Sprintf("%s=%.0f", l, s.IOPS[d]))
		}
	}
	out := fmt.Sprintf("Jobs: %d: [%s][%.1f%%]", s.Running, p.modes, s.Share*100)
	if s.Ramping {
		out += "[ramp]"
	}
	if len(bw) > 0 {
		out += "[" + strings.Join(bw, ",") + "][" + strings.Join(iops, ",") + " IOPS]"
	}
	if s.StalledFor > 0 {
		out += fmt.Sprintf("[STALLED %v]", s.StalledFor.Round(time.Second/10))
	}
	if s.ETA >= 0 {
		out += fmt.Sprintf("[eta %v]", s.ETA.Round(time.Second))
	}
	return out
}

// end removes the line.
func (p *benchProgress) end() {
	if p.mode == "bar" && p.width > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskcopy"
)

func newProgressFlag() *choice { return newChoice("auto", "auto", "bar", "json", "none") }

// progress shows how far long work has come. Its methods are called from one
// goroutine at a time.
type progress struct {
	report func(diskcopy.Progress) // nil where nothing is shown
	bars   *mpb.Progress
	bar    *mpb.Bar
	phase  string
	wait   atomic.Pointer[string] // whom the phase waits for; the bar's goroutine reads it
}

func newProgress(c *cobra.Command, mode string) *progress {
	p := &progress{}
	switch {
	case mode == "json":
		p.report = jsonProgress(c.OutOrStdout())
	case mode == "bar" || mode == "auto" && isTerminal(c.ErrOrStderr()):
		p.bars = mpb.New(mpb.WithOutput(c.ErrOrStderr()), mpb.WithAutoRefresh())
		p.report = p.draw
	}
	return p
}

// jsonProgress writes a line per report: {"phase":"copy","done":1048576,"total":2097152}.
func jsonProgress(w io.Writer) func(diskcopy.Progress) {
	last := diskcopy.Progress{Done: -1}
	return func(now diskcopy.Progress) {
		if now == last {
			return
		}
		last = now
		if line, err := json.Marshal(now); err == nil {
			fmt.Fprintf(w, "%s\n", line) // the end of a pipe shows at the result
		}
	}
}

// draw moves the bar of the phase, and begins one for a new phase.
func (p *progress) draw(now diskcopy.Progress) {
	if now.Phase != p.phase {
		p.finish()
		p.phase = now.Phase
		p.bar = p.bars.New(now.Total, mpb.BarStyle(),
			mpb.PrependDecorators(decor.Name(now.Phase+" "), decor.CountersKibiByte("% .1f / % .1f")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .0f"), decor.Any(p.waiting)))
	}
	p.tell(now)
	p.bar.SetCurrent(now.Done)
}

// tell notes for the bar whom the work waits for.
func (p *progress) tell(now diskcopy.Progress) {
	text := ""
	if now.WaitingFor != "" {
		text = fmt.Sprintf(" waiting for %s for %d s", now.WaitingFor, now.WaitingSeconds)
	}
	p.wait.Store(&text)
}

func (p *progress) waiting(decor.Statistics) string {
	if text := p.wait.Load(); text != nil {
		return *text
	}
	return ""
}

// finish takes the current bar off the terminal's last line.
func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Abort(false)
		p.bar.Wait()
		p.bar = nil
	}
}

// end leaves the terminal to others.
func (p *progress) end() {
	if p.bars != nil {
		p.finish()
		p.bars.Wait()
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

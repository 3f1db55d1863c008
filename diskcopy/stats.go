package diskcopy

import (
	"time"

	"golang.org/x/sys/unix"
)

// Count is a number of operations and the bytes they covered.
type Count struct {
	Ops   int64 `json:"ops"`
	Bytes int64 `json:"bytes"`
}

func (c *Count) add(n int64) { c.Ops++; c.Bytes += n }

func (c *Count) merge(o Count) { c.Ops += o.Ops; c.Bytes += o.Bytes }

// Phase is the wall time of one part of the work.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Counts are what the copy did, by kind.
type Counts struct {
	Read   Count `json:"read"`   // from the source
	Write  Count `json:"write"`  // to the target
	Zero   Count `json:"zero"`   // zero requests, probe and bulk among them
	Skip   Count `json:"skip"`   // ranges that were zero on both sides
	Clone  Count `json:"clone"`  // shared with the source (reflink)
	Status Count `json:"status"` // block status queries to the target
}

func (c *Counts) merge(o *Counts) {
	c.Read.merge(o.Read)
	c.Write.merge(o.Write)
	c.Zero.merge(o.Zero)
	c.Skip.merge(o.Skip)
	c.Clone.merge(o.Clone)
	c.Status.merge(o.Status)
}

// Stats tells what a copy did.
type Stats struct {
	Size     int64    `json:"size"` // of the source, bytes
	Strategy Strategy `json:"strategy"`
	// ZeroBy is what became of the strategy: "none needed", "target was zero",
	// "bulk", "each hole", "each hole, where not zero", "writes", "clone".
	ZeroBy string `json:"zero_by"`
	// Probes are zero requests that were timed, Refused those that the target
	// declined as not fast.
	Probes  int64 `json:"probes"`
	Refused int64 `json:"refused"`
	Counts
	ResumedAt   int64 `json:"resumed_at"`   // offset a resumed copy began at
	ResentBytes int64 `json:"resent_bytes"` // written by an earlier run and again by this one
	// Below ResumedAt: what was compared, how much of that differed and was written again, and
	// what was trusted instead.
	CheckedBytes  int64   `json:"checked_bytes"`
	DifferedBytes int64   `json:"differed_bytes"`
	TrustedBytes  int64   `json:"trusted_bytes"`
	Verified      bool    `json:"verified"`
	Phases        []Phase `json:"phases"`
	WallSeconds   float64 `json:"wall_seconds"`
	// UserSeconds and SystemSeconds are the CPU time of the whole process while
	// the copy ran.
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
}

// clock measures phases and CPU time.
type clock struct {
	start, mark time.Time
	user, sys   float64
}

func startClock() clock {
	c := clock{start: time.Now()}
	c.mark = c.start
	c.user, c.sys = cpuSeconds()
	return c
}

// phase ends the phase that began with the last call.
func (c *clock) phase(s *Stats, name string) {
	now := time.Now()
	s.Phases = append(s.Phases, Phase{name, now.Sub(c.mark).Seconds()})
	c.mark = now
}

func (c *clock) stop(s *Stats) {
	user, sys := cpuSeconds()
	s.UserSeconds, s.SystemSeconds = user-c.user, sys-c.sys
	s.WallSeconds = time.Since(c.start).Seconds()
}

func cpuSeconds() (user, sys float64) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	return float64(u.Utime.Nano()) / 1e9, float64(u.Stime.Nano()) / 1e9
}

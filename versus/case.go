package main

import (
	"context"
	"errors"
	"time"
)

// A Case compares contenders on one job.
type Case struct {
	Name string
	// What is one line on what is measured.
	What string
	// Unit of Sample.Value: rate (operations per second) or seconds.
	Unit  Unit
	Goals []Goal
	// Short: part of the short form.
	Short bool
	// Prepare starts servers and makes files; its contenders are run in turn.
	// What it registers with Env.Defer is undone after the case.
	Prepare func(ctx context.Context, e *Env) ([]Contender, error)
}

// errSkip is wrapped by a Prepare that cannot run here for a good reason.
var errSkip = errors.New("not run")

// Unit says what Sample.Value is.
type Unit string

// The units of a value.
const (
	Rate    Unit = "op/s"   // more is better
	Seconds Unit = "s"      // less is better
	Bytes   Unit = "bytes"  // less is better
	Shared  Unit = "shared" // 1 or 0
)

// oursName begins the names of our contenders.
const oursName = "vmdisk"

// A Contender runs the job once.
type Contender struct {
	Name string
	Run  func(ctx context.Context, round int) (Sample, error)
	// Info: shown, but not one of the peers to beat.
	Info bool
	// Rounds bounds how often it runs; 0: in every round.
	Rounds int
}

// Sample is what one run measured.
type Sample struct {
	Value float64 `json:"value"`
	// ClientCPU and ServerCPU are user and system time together, per operation
	// for rates, of the whole run otherwise.
	ClientCPU time.Duration `json:"client_cpu_ns"`
	ServerCPU time.Duration `json:"server_cpu_ns"`
	// RSS is the peak resident set of the side that matters, in bytes.
	RSS int64 `json:"rss,omitempty"`
}

// Metric names what a goal looks at.
type Metric string

// The metrics of goals.
const (
	Value     Metric = "value"
	ServerCPU Metric = "server CPU"
	ClientCPU Metric = "client CPU"
	BothCPU   Metric = "CPU of both ends"
)

func (m Metric) of(s Sample) float64 {
	switch m {
	case ServerCPU:
		return s.ServerCPU.Seconds()
	case ClientCPU:
		return s.ClientCPU.Seconds()
	case BothCPU:
		return (s.ServerCPU + s.ClientCPU).Seconds()
	}
	return s.Value
}

// A Goal is what our contender has to reach.
type Goal struct {
	Metric Metric
	// Against is the name of the contender to compare with; "" the best peer
	// (by the case's value), "-" none: Limit is of the value itself.
	Against string
	// Limit of the ratio ours / theirs, or of the value.
	Limit float64
	// AtLeast: the limit is a lower one.
	AtLeast bool
}

const absolute = "-"

// faster and cheaper are the usual goals.
func faster(limit float64) Goal            { return Goal{Metric: Value, Limit: limit, AtLeast: true} }
func within(limit float64) Goal            { return Goal{Metric: Value, Limit: limit} }
func cheaper(m Metric, limit float64) Goal { return Goal{Metric: m, Limit: limit} }
func atMost(limit float64) Goal            { return Goal{Metric: Value, Against: absolute, Limit: limit} }
func against(name string, limit float64) Goal {
	return Goal{Metric: Value, Against: name, Limit: limit}
}

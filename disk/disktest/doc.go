// Package disktest proves that a driver or a filter keeps the contract of
// package disk. [Conformance] is the one suite that all of them run; [Random]
// drives a disk with random operations against a model of its bytes, from
// several goroutines and a queue at once; [Crash] is a RAM disk on which only
// flushed bytes survive a power loss; [Allocations] and [Benchmark] measure.
//
// A driver's own test is then short:
//
//	func TestConformance(t *testing.T) {
//		disktest.Conformance(t, func(tb testing.TB) *disk.Disk { … }, disktest.Options{})
//	}
//
// Faults on purpose come from package filter/fault, whose rules compose.
package disktest

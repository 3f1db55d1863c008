// Package engine runs the jobs of a job file against disks.
//
// Each job is one goroutine on a thread of its own that drives a [disk.Queue]
// and nothing below it: driver/file's queue is an io_uring, an NBD disk's its
// pipeline. A worker allocates nothing per I/O. Latencies are taken as fio takes
// them: slat from the choice of the I/O to the return of the submission, clat
// from there to the completion, lat over both; engines that fio calls synchronous
// run at depth 1 and have no slat.
//
// Beside fio's figures the engine keeps the latency from the intended time of
// rated jobs (a late issue counts), and stalls: times in which I/O was in flight
// and nothing completed.
package engine

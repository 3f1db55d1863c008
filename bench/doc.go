// Package bench runs fio job files against disks: it reads them (jobfile), runs
// them (engine), repeats them, and compares the outcomes of runs, fio's own
// included.
package bench

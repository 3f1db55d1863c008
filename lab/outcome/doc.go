// Package outcome holds what the cells of an experiment measured, on disk (one
// JSON file a finished run, so that a stopped experiment goes on) and in memory;
// decides which set-up wins, how surely, and what was the limit; and makes the
// report. It measures nothing.
package outcome

//go:build race

package diskcopy

// raceEnabled: sync.Pool drops what it holds at random under the race detector.
const raceEnabled = true

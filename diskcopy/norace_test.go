//go:build !race

package diskcopy

const raceEnabled = false

//go:build race

package server_test

// The race detector makes sync.Pool forget at random.
const raceEnabled = true

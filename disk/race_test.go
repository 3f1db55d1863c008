//go:build race

package disk_test

// raced tells that the race detector runs: it makes sync.Pool forget at random, and allocates.
const raced = true

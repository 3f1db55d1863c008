//go:build race

package nbd_test

// raced tells that the race detector runs: it makes sync.Pool forget at random.
const raced = true

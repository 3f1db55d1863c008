//go:build race

package client

// raced tells that the race detector runs: it makes sync.Pool forget at random.
const raced = true

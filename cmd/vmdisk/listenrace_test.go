package main

import (
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// TestListenRace: the same within one process, in which the steps of many starts
// really interleave.
func TestListenRace(t *testing.T) {
	t.Parallel()
	for round := range 200 {
		path := filepath.Join(t.TempDir(), "s")
		stale(t, path)
		const starts = 16
		got := make([]net.Listener, starts)
		var begin, done sync.WaitGroup
		begin.Add(1)
		for i := range starts {
			done.Go(func() {
				begin.Wait()
				got[i], _ = listenOn("unix:"+path, unixsock.Options{})
			})
		}
		begin.Done()
		done.Wait()
		won := 0
		var winner net.Listener
		for _, l := range got {
			if l != nil {
				won++
				winner = l
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d of %d listen on one path", round, won, starts)
		}
		winner.Close()
	}
}

package server_test

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// However the goroutines that hear the idle connections come and go, one is always
// left. With a delay between the steps of leaving, a server fell silent within a
// second. Not parallel: it changes GOMAXPROCS, so that one goroutine is kept waiting.
func TestSomebodyHearsIdleConnections(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	r := serveDisk(t, memDisk(t, 8<<20))
	r.BetweenSteps(func() { time.Sleep(200 * time.Microsecond) })
	var peers []*peer
	for range 8 {
		p := r.connect(t, nbd.Simple, "d")
		_ = p.conn.SetDeadline(time.Now().Add(patience))
		peers = append(peers, p)
	}
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			for round := range 300 {
				n := uint64(4096)
				if (round+i)%3 == 0 {
					n = 2 << 20 // its sender waits for the client, and lets another hear the rest
				}
				if got := p.do(nbd.Request{Command: nbd.CmdRead, Length: n}, nil); got.errno != nbd.OK {
					t.Error(got.errno)
				}
				time.Sleep(time.Duration(i*50) * time.Microsecond)
			}
		})
	}
	wg.Wait()
}

// stuck has inline writes that do not return until they are let.
type stuck struct {
	*below
	entered, gate chan struct{}
}

func (s *stuck) TryRead(p []byte, off int64) error { return s.d.TryRead(p, off) }

func (s *stuck) TryWrite([]byte, int64, disk.Flags) error {
	s.entered <- struct{}{}
	<-s.gate
	return nil
}

// Goroutines that are stuck where nobody expected it do not make the server deaf.
func TestStuckWritesLeaveSomebodyWaiting(t *testing.T) {
	t.Parallel()
	s := &stuck{below: &below{d: memDisk(t, 1<<20)}, entered: make(chan struct{}, 100), gate: make(chan struct{})}
	r := serveDisk(t, disk.New(s, "stuck"))
	t.Cleanup(func() { close(s.gate) })
	honest := r.connect(t, nbd.Simple, "d")
	var blocked []*peer
	for range 20 {
		blocked = append(blocked, r.connect(t, nbd.Simple, "d"))
	}
	write := nbd.Request{Command: nbd.CmdWrite, Length: 512}
	for range 2 { // the second time after the guard has slept
		for _, p := range blocked {
			p.send(write, make([]byte, 512))
		}
		for range blocked {
			select {
			case <-s.entered:
			case <-time.After(patience):
				t.Fatal("nobody hears the others")
			}
		}
		for range 3 {
			honest.alive()
		}
		for range blocked {
			s.gate <- struct{}{}
		}
		for _, p := range blocked {
			p.reply(write)
		}
		time.Sleep(1100 * time.Millisecond)
	}
}

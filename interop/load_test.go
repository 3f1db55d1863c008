package interop

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// What one honest client is promised while others are hostile, see docs/threat-model.md.
const (
	loadFactor = 5         // its 99th percentile may grow by this factor
	loadMemory = 256 << 20 // peak resident set of the server
	// A processor that is shared makes waits of a few time slices, whoever is served.
	loadNoise = 10 * time.Millisecond
	loadTries = 4
	// Beyond this the honest client gives up.
	loadPatience = 5 * time.Second
)

// scale is how much of the load a test puts on: all of it with VMDISK_HOSTILE=full
// (several minutes), else what fits into the normal suite.
type scale struct {
	full    bool
	clients int
	settle  time.Duration // hostile clients alone
	measure time.Duration // with an honest one beside them
}

func loadScale() scale {
	if os.Getenv("VMDISK_HOSTILE") == "full" {
		return scale{true, 1000, 5 * time.Second, 5 * time.Second}
	}
	return scale{false, 250, 200 * time.Millisecond, 300 * time.Millisecond}
}

// A probe is one operation of an honest client, which takes a while.
type probe func(ctx context.Context) error

// hostile does what it does on one connection until the server hangs up or the
// connection is closed.
type hostile func(c net.Conn) error

// horde is many hostile clients. One that is shown the door comes back.
type horde struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	in     atomic.Int64 // connections made
	mu     sync.Mutex
	err    error // the first that says how one was shown the door
}

func unleash(t *testing.T, n int, dial func(context.Context) (net.Conn, error), do hostile) *horde {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &horde{cancel: cancel}
	t.Cleanup(h.stop)
	for range n {
		h.wg.Go(func() {
			for ctx.Err() == nil {
				h.note(h.once(ctx, dial, do))
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return h
}

func (h *horde) once(ctx context.Context, dial func(context.Context) (net.Conn, error), do hostile) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	h.in.Add(1)
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer func() { _ = c.Close() }()
	return do(c)
}

func (h *horde) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
}

func (h *horde) stop() {
	h.cancel()
	h.wg.Wait()
}

// taken are the latencies of one probe, sorted.
type taken []time.Duration

func (l taken) at(percent int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)*percent/100, len(l)-1)]
}

func (l taken) String() string {
	return fmt.Sprintf("%d, median %v, p99 %v, longest %v", len(l), l.at(50), l.at(99), l.at(100))
}

// inTurn takes the probes in turn for a while, so that whatever else the machine
// does falls on each of them alike. A probe that hangs is given up.
func inTurn(t *testing.T, d time.Duration, probes ...probe) []taken {
	t.Helper()
	all := make([]taken, len(probes))
	once := func(p probe) error {
		ctx, cancel := context.WithTimeout(t.Context(), loadPatience)
		defer cancel()
		return p(ctx)
	}
	for end := time.Now().Add(d); time.Now().Before(end) || len(all[0]) < 20; {
		for i, p := range probes {
			start := time.Now()
			if err := once(p); err != nil {
				t.Errorf("the honest client, after %v: %v", time.Since(start), err)
				return all
			}
			all[i] = append(all[i], time.Since(start))
		}
	}
	for i := range all {
		slices.Sort(all[i])
	}
	return all
}

// bearable fails the test unless the honest client of the attacked server fares
// nearly as well as one of another server that nobody attacks, and as it did
// alone. What fails is measured again: only a server fails each time.
func bearable(t *testing.T, d time.Duration, alone taken, attacked, untouched probe) {
	t.Helper()
	var got []taken
	for range loadTries {
		if got = inTurn(t, d, attacked, untouched); t.Failed() {
			return
		}
		if got[0].at(99) <= loadFactor*max(alone.at(99), got[1].at(99))+loadNoise {
			t.Logf("alone: %v; attacked: %v; another server meanwhile: %v", alone, got[0], got[1])
			return
		}
	}
	t.Errorf("the honest client waits: alone: %v; attacked: %v; another server meanwhile: %v", alone, got[0], got[1])
}

func smallEnough(t *testing.T, p *peer.Proc) {
	t.Helper()
	now, peak, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("memory: %d MiB, at its peak %d MiB", now>>20, peak>>20)
	if peak > loadMemory {
		t.Errorf("the server took %d MiB, more than %d", peak>>20, loadMemory>>20)
	}
}

package diskcopy

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/filter/nozero"
)

// TestStrategyCounts copies the study's image in every cell and counts what
// reaches the server. Zeroes are those done; bytes of the last column are those
// a server that turns zeroes into writes would write.
func TestStrategyCounts(t *testing.T) {
	t.Parallel()
	type cell struct {
		zm     nozero.ZeroMode
		fm     nozero.FastZeroMode
		status bool
	}
	a, b := nozero.ZeroPlugin, nozero.ZeroEmulate
	for _, c := range []struct {
		cell
		s                       Strategy
		writes, zeroes, refused int64
		zeroed                  int64 // MiB
	}{
		// Straight copy.
		{cell{a, "default", false}, Write, 100, 0, 0, 0},
		{cell{b, "default", false}, Write, 100, 0, 0, 0},
		{cell{"none", "default", false}, Auto, 100, 0, 0, 0},
		// A zero per hole.
		{cell{a, "none", false}, ZeroEach, 50, 50, 0, 50},
		{cell{b, "none", false}, ZeroEach, 50, 50, 0, 50},
		// Status first, of a target that is zero and of one that cannot tell.
		{cell{a, "none", true}, StatusFirst, 50, 0, 0, 0},
		{cell{a, "none", false}, StatusFirst, 50, 50, 0, 50},
		// Pre-zero: 150 MiB on B.
		{cell{a, "ignore", false}, PreZero, 50, 1, 0, 100},
		{cell{b, "ignore", false}, PreZero, 50, 1, 0, 100},
		// No fallback: safe, and back to 50 zeroes on A unless the server offers fast zeroes.
		{cell{a, "none", false}, NoFallback, 50, 50, 0, 50},
		{cell{b, "none", false}, NoFallback, 50, 50, 0, 50},
		{cell{a, "default", false}, NoFallback, 50, 1, 0, 100},
		{cell{b, "default", false}, NoFallback, 50, 50, 1, 50},
		{cell{b, "ignore", false}, NoFallback, 50, 1, 0, 100},
		// Auto: the probe is one hole, which has to be zeroed anyway.
		{cell{a, "default", false}, Auto, 50, 2, 0, 98},
		{cell{a, "ignore", false}, Auto, 50, 2, 0, 98},
		{cell{a, "none", false}, Auto, 50, 50, 0, 50},
		{cell{a, "slow", false}, Auto, 50, 50, 1, 50},
		{cell{b, "default", false}, Auto, 50, 50, 1, 50},
		{cell{b, "none", false}, Auto, 50, 50, 0, 50},
		{cell{b, "slow", false}, Auto, 50, 50, 1, 50},
		{cell{b, "ignore", false}, Auto, 50, 50, 0, 50},
		// With block status an empty target needs nothing.
		{cell{a, "default", true}, Auto, 50, 0, 0, 0},
		{cell{b, "ignore", true}, Auto, 50, 0, 0, 0},
	} {
		t.Run(fmt.Sprintf("%s/%s/status=%t/%s", c.zm, c.fm, c.status, c.s), func(t *testing.T) {
			src := striped(t)
			r, dst := studyServer(t, 100*mib, c.zm, c.fm, c.status, 10*time.Millisecond)
			st, err := Copy(context.Background(), dst, src, Options{Strategy: c.s})
			if err != nil {
				t.Fatal(err)
			}
			if w, z, n, by := r.writes.Load(), r.zeroes.Load(), r.refused.Load(), r.zeroed.Load(); w != c.writes || z != c.zeroes || n != c.refused || by != c.zeroed*mib {
				t.Errorf("%d writes, %d zeroes, %d refused, %d bytes zeroed; want %d, %d, %d, %d MiB", w, z, n, by, c.writes, c.zeroes, c.refused, c.zeroed)
			}
			if st.Write.Ops != c.writes || st.Zero.Ops != c.zeroes || st.Refused != c.refused {
				t.Errorf("the statistics say %d writes, %d zeroes, %d refused", st.Write.Ops, st.Zero.Ops, st.Refused)
			}
			if r.flushes.Load() != 1 {
				t.Errorf("%d flushes", r.flushes.Load())
			}
			mustEqual(t, src, dst)
		})
	}
}

package rate

import (
	"testing"
	"time"
)

// The waits of a bucket of 1000 a second and a burst of 100, at given times.
func TestBucket(t *testing.T) {
	t.Parallel()
	start := time.Now()
	b := newBucket(1000, 100)
	b.filled = start
	for i, c := range []struct {
		at   time.Duration
		n    int64
		want time.Duration
	}{
		{0, 60, 0},                      // 40 left
		{0, 40, 0},                      // 0 left
		{0, 50, 50 * time.Millisecond},  // 50 owed
		{0, 50, 100 * time.Millisecond}, // 100 owed: in order of arrival
		{100 * time.Millisecond, 10, 10 * time.Millisecond}, // paid back just now
		{time.Hour, 100, 0},                                    // never more than the burst
		{time.Hour, 1, time.Millisecond},                       // 1 owed
		{2 * time.Hour, 1100, 0},                               // longer than the burst: a full bucket lets it through,
		{2 * time.Hour, 1, 1001 * time.Millisecond},            // the next one pays
		{2*time.Hour + 2*time.Second, 100, 0},                  // all paid
		{2*time.Hour + 1*time.Second, 1, 1 * time.Millisecond}, // a clock that goes back gives nothing
	} {
		if got := b.take(c.n, start.Add(c.at)).Round(time.Microsecond); got != c.want {
			t.Errorf("step %d: %v, want %v", i, got, c.want)
		}
	}
	b.give(1)
	if got := b.take(1, start); got != time.Millisecond {
		t.Errorf("after giving one back: %v", got)
	}
}

func TestDefaultBurst(t *testing.T) {
	t.Parallel()
	if b := newBucket(5000, 0); b.burst != 500 {
		t.Errorf("burst %v", b.burst)
	}
}

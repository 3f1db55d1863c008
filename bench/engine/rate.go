package engine

import (
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// rater spaces the I/Os of a job with rate or rate_iops. Times are nanoseconds
// since the run began. An I/O's intended time follows from what was issued before
// it alone, so a job that fell behind catches up, as fio's does.
type rater struct {
	any     bool
	poisson bool
	random  gen.Random
	dirs    [jobfile.Dirs]dirRate
	has     [jobfile.Dirs]bool
}

type dirRate struct {
	perSecond float64 // bytes or I/Os; 0: not rated
	bytes     bool
	next      float64
}

func (r *rater) init(j *jobfile.Job) {
	r.poisson = j.RatePoisson
	r.random.Seed(uint64(j.Number) + j.RandSeed)
	for d := range jobfile.Dirs {
		r.has[d] = j.Mode.Has(d)
		switch {
		case !r.has[d]:
		case j.Rate[d] > 0:
			r.dirs[d] = dirRate{perSecond: float64(j.Rate[d]), bytes: true}
		case j.RateIOPS[d] > 0:
			r.dirs[d] = dirRate{perSecond: float64(j.RateIOPS[d])}
		}
		r.any = r.any || r.dirs[d].perSecond > 0
	}
}

func (r *rater) start(now int64) { r.shift(now) }

// shift moves all intended times by delta.
func (r *rater) shift(delta int64) {
	for d := range r.dirs {
		r.dirs[d].next += float64(delta)
	}
}

// pick returns the direction to go and its intended time, or the time to wait
// for. The direction drawn gives way to another one that is due.
func (r *rater) pick(drawn int, t int64) (dir int, intended, held int64) {
	if p := &r.dirs[drawn]; p.perSecond == 0 {
		return drawn, 0, 0
	} else if int64(p.next) <= t {
		return drawn, max(1, int64(p.next)), 0
	}
	held = int64(r.dirs[drawn].next)
	for d := range r.dirs {
		p := &r.dirs[d]
		if d == drawn || !r.has[d] || p.perSecond == 0 {
			continue
		}
		if int64(p.next) <= t {
			return d, max(1, int64(p.next)), 0
		}
		held = min(held, int64(p.next))
	}
	return drawn, 0, held
}

// issued moves the direction's intended time on.
func (r *rater) issued(dir int, n int64) {
	p := &r.dirs[dir]
	if p.perSecond == 0 {
		return
	}
	amount := 1.0
	if p.bytes {
		amount = float64(n)
	}
	gap := amount * 1e9 / p.perSecond
	if r.poisson {
		gap *= -math.Log(1 - r.random.Float())
	}
	p.next += gap
}

// timerTag marks the completion that says the timer fired.
const timerTag = ^uint64(0)

// timer wakes a worker that waits for completions at a given time, by a timerfd
// that its queue watches. It is made when first needed.
type timer struct {
	fd      int
	made    bool
	targets []*target
	until   int64
}

func (t *timer) init(targets []*target) error {
	t.targets = targets
	return nil
}

// arm lets the queue return in `left` nanoseconds.
func (t *timer) arm(left int64) error {
	if len(t.targets) > 1 {
		return nil // those are polled
	}
	if !t.made {
		fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("timerfd_create", err)
		}
		t.fd, t.made = fd, true
		if err := t.targets[0].q.WatchFD(fd, timerTag); err != nil {
			return err
		}
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(left, 1))}
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(t.fd, 0, &spec, nil))
}

// fired empties the timer.
func (t *timer) fired() {
	var b [8]byte
	_, _ = unix.Read(t.fd, b[:]) // EAGAIN: it was armed again meanwhile
}

func (t *timer) close() {
	if t.made {
		_ = unix.Close(t.fd)
		t.made = false
	}
}

package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// beat is how often the agent says that it lives.
const beat = time.Second

// Options of the node's side.
type Options struct {
	// Version of vmdisk, for Hello.
	Version string
}

// ErrPowerOff is what Serve returns when the lab asked the node to end.
var ErrPowerOff = errors.New("asked to power off")

// server is the node's side of one channel.
type server struct {
	lines   *lines
	options Options

	mu     sync.Mutex
	disk   *testDisk // prepared
	busy   string    // the operation that runs, "" if none
	cancel context.CancelFunc
	gate   chan Go
	last   Progress
}

// Serve does what the lab at the other end of rw asks for, until the channel ends
// (nil), ErrPowerOff, or ctx ends. Nothing it started is left when it returns; it
// can return only after a read of rw does, so the caller closes rw to end it.
func Serve(ctx context.Context, rw io.ReadWriter, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{lines: newLines(rw), options: o}
	if c, ok := rw.(io.Closer); ok {
		s.lines.onCut = func(error) { _ = c.Close() } // the reader below ends, too
	}
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		s.disk.close()
	}()
	if err := s.lines.write(sent{Op: opHello, Body: s.hello()}); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	wg.Go(func() { s.beats(ctx) })
	for {
		m, err := s.lines.read()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("agent: %w", cmp.Or(s.lines.broken(), err))
		}
		if err := s.take(ctx, &wg, m); err != nil {
			return err
		}
	}
}

func (s *server) hello() Hello {
	h := Hello{Version: s.options.Version, CPUs: runtime.NumCPU(), PID: os.Getpid(), Fio: fioVersion("")}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) == nil {
		h.UptimeNS = ts.Nano()
	}
	return h
}

func (s *server) beats(ctx context.Context) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if s.lines.write(sent{Op: opBeat}) != nil {
				return // the reader ends as well
			}
		}
	}
}

// take handles one request. What takes time runs on a goroutine of its own, so that
// the clock answers and a stop is heard.
func (s *server) take(ctx context.Context, wg *sync.WaitGroup, m message) error {
	switch m.Op {
	case opPing:
		return s.lines.write(sent{ID: m.ID, Op: opDone, Body: pong{NowNS: Monotonic()}})
	case opPowerOff:
		return errors.Join(ErrPowerOff, s.lines.write(sent{ID: m.ID, Op: opDone}))
	case opStop:
		s.stop()
	case opGo:
		return s.open(m)
	case opPrepare:
		return s.begin(ctx, wg, m, s.prepare)
	case opRun:
		return s.begin(ctx, wg, m, s.run)
	default:
		return s.done(m.ID, nil, fmt.Errorf("unknown operation %q: the lab is newer than this agent", m.Op))
	}
	return nil
}

func (s *server) done(id int, body any, err error) error {
	m := sent{ID: id, Op: opDone, Body: body}
	if err != nil {
		m.Err = oneLine(err)
	}
	err = s.lines.write(m)
	if errors.Is(err, errLong) {
		return s.lines.write(sent{ID: id, Op: opDone, Err: "the answer cannot be sent: " + err.Error()})
	}
	return err
}

func (s *server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

// open passes the time of the start to a run that waits for it.
func (s *server) open(m message) error {
	var g Go
	if err := json.Unmarshal(m.Body, &g); err != nil {
		return fmt.Errorf("agent: go: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.gate <- g: // nil while nothing runs
	default:
	}
	return nil
}

type operation func(ctx context.Context, m message) (any, error)

// begin runs an operation, one at a time.
func (s *server) begin(ctx context.Context, wg *sync.WaitGroup, m message, do operation) error {
	s.mu.Lock()
	if s.busy != "" {
		busy := s.busy
		s.mu.Unlock()
		return s.done(m.ID, nil, fmt.Errorf("%s: %s is still under way", m.Op, busy))
	}
	ctx, cancel := context.WithCancel(ctx)
	s.busy, s.cancel, s.gate, s.last = m.Op, cancel, make(chan Go, 1), Progress{}
	s.mu.Unlock()
	wg.Go(func() {
		defer cancel()
		body, err := do(ctx, m)
		s.mu.Lock()
		s.busy, s.cancel, s.gate = "", nil, nil
		s.mu.Unlock()
		_ = s.done(m.ID, body, err) // a channel that ended shows at the reader
	})
	return nil
}

// progress tells how far an operation has come.
func (s *server) progress(id int, p Progress) {
	_ = s.lines.write(sent{ID: id, Op: opProgress, Body: p})
}

func (s *server) prepare(ctx context.Context, m message) (any, error) {
	var p Prepare
	if err := json.Unmarshal(m.Body, &p); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	s.disk.close()
	s.disk = nil
	d, err := openDisk(ctx, p, func(share float64) { s.progress(m.ID, Progress{Share: share}) })
	if err != nil {
		return nil, fmt.Errorf("prepare the disk: %w", err)
	}
	s.disk = d
	return d.prepared, nil
}

func (s *server) run(ctx context.Context, m message) (any, error) {
	var r Run
	if err := json.Unmarshal(m.Body, &r); err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if s.disk == nil {
		return nil, errors.New("run: no disk was prepared")
	}
	x := &execution{disk: s.disk, run: r, version: s.options.Version, progress: func(p Progress) { s.progress(m.ID, p) }}
	if r.Gate {
		gate := s.gate
		x.gate = func(ctx context.Context, almost func()) error {
			s.progress(m.ID, Progress{Ready: true})
			return pass(ctx, gate, almost)
		}
	}
	res, err := x.perform(ctx)
	if err != nil {
		return nil, err
	}
	return res, res.fit(fitLimit)
}

func (x *execution) perform(ctx context.Context) (*Result, error) {
	switch x.run.Engine {
	case "vmdisk", "":
		return x.native(ctx)
	case "fio":
		return x.fio(ctx)
	}
	return nil, fmt.Errorf("run: unknown engine %q: want vmdisk or fio", x.run.Engine)
}

const (
	// nearly is how long before the start the last things are done that take time.
	nearly = 30 * time.Millisecond
	// spin is how long before the start the agent stops sleeping: a timer may be late
	// by a scheduler's tick, and in an emulated guest by more.
	spin = 4 * time.Millisecond
)

// pass waits for the time of the start; almost is called shortly before.
func pass(ctx context.Context, gate <-chan Go, almost func()) error {
	var g Go
	select {
	case <-ctx.Done():
		return ctx.Err()
	case g = <-gate:
	}
	if err := sleepUntil(ctx, g.StartNS-nearly.Nanoseconds()); err != nil {
		return err
	}
	almost()
	if err := sleepUntil(ctx, g.StartNS-spin.Nanoseconds()); err != nil {
		return err
	}
	for Monotonic() < g.StartNS {
		runtime.Gosched()
	}
	return nil
}

// sleepUntil sleeps until a time of the monotonic clock.
func sleepUntil(ctx context.Context, atNS int64) error {
	t := time.NewTimer(time.Duration(atNS - Monotonic()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// usage is the CPU time of the node so far.
type usage struct {
	atNS         int64
	user, system int64 // of this process and its ended children, ns
	busy, steal  float64
	total        float64 // of the node's CPUs, seconds
}

func readUsage() usage {
	u := usage{atNS: Monotonic()}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			u.user += r.Utime.Nano()
			u.system += r.Stime.Nano()
		}
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return u
	}
	stat, err := fs.Stat()
	if err != nil {
		return u
	}
	t := stat.CPUTotal
	u.steal = t.Steal
	u.busy = t.User + t.Nice + t.System + t.IRQ + t.SoftIRQ
	u.total = u.busy + t.Idle + t.Iowait + t.Steal
	return u
}

// since fills in what was used from u until now.
func (u usage) since(r *Result, guest bool) {
	now := readUsage()
	r.UserNS, r.SystemNS = now.user-u.user, now.system-u.system
	if total := now.total - u.total; total > 0 {
		r.CPUBusy, r.Steal = (now.busy-u.busy)/total, (now.steal-u.steal)/total
	}
	if span := now.atNS - u.atNS; !guest && span > 0 {
		r.CPUBusy = float64(r.UserNS+r.SystemNS) / float64(span)
	}
}

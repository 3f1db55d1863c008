package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/outcome"
)

// Node is one client.
type Node struct {
	Name string // a, b, c …
	Conn *agent.Conn
	// Exited is closed when the process behind the node has ended; nil: unknown.
	Exited <-chan struct{}
}

// Options of Together.
type Options struct {
	// Run is what every node runs; Gate is set here.
	Run agent.Run
	// Lead is the time between the last node's "ready" and the start; it must be
	// enough to tell all nodes. 0: 300 ms.
	Lead time.Duration
	// SilentLimit is how long a node may give no sign of life before it is given
	// up. A guest whose host is overloaded is silent for seconds; that is a finding,
	// not a failure. 0: 2 minutes.
	SilentLimit time.Duration
	// StuckLimit is how long a node that is alive may get nothing done between start
	// and end before it is given up: an I/O that never completes would hold up the
	// experiment for good. It is longer than any flush should take. 0: 5 minutes.
	StuckLimit time.Duration
	// MaxDriftPPM is by how much a node's clock may run away from the host's in
	// millionths; what the measurement of the clocks cannot tell is let through. 0: 5000.
	MaxDriftPPM float64
	// Started is called at the common start, Ended when the last node is done.
	Started, Ended func()
	// Progress, if not nil, is called each second with the sum of all nodes.
	Progress func(agent.Progress)
}

func (o *Options) defaults() {
	if o.Lead == 0 {
		o.Lead = 300 * time.Millisecond
	}
	if o.SilentLimit == 0 {
		o.SilentLimit = 2 * time.Minute
	}
	if o.StuckLimit == 0 {
		o.StuckLimit = 5 * time.Minute
	}
	if o.MaxDriftPPM == 0 {
		o.MaxDriftPPM = 5000
	}
	o.Run.Gate = true
}

// NodeError is a node that did not do its part.
type NodeError struct {
	Node string
	Err  error
}

func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %v", e.Node, e.Err) }

// Unwrap returns the cause.
func (e *NodeError) Unwrap() error { return e.Err }

// Together runs the same load on all nodes. The outcome has their results, the
// common window and what was found of clocks and silences; Discarded says why it
// does not count. The error names the first node that failed; the others have
// been stopped in order then.
func Together(ctx context.Context, nodes []Node, o Options) (*outcome.Run, error) {
	o.defaults()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts := make([]*part, len(nodes))
	for i, n := range nodes {
		parts[i] = &part{Node: n, limit: o.SilentLimit, stuck: stuck{limit: o.StuckLimit}}
	}
	run := &outcome.Run{Started: time.Now()}
	if len(nodes) == 0 {
		return nil, errors.New("no nodes to run the load")
	}
	if err := together(ctx, cancel, parts, &o); err != nil {
		abandon(parts)
		return nil, err
	}
	count(run, parts, o.MaxDriftPPM)
	return run, nil
}

func together(ctx context.Context, cancel context.CancelCauseFunc, parts []*part, o *Options) error {
	if err := each(cancel, parts, func(p *part) error { return p.layOut(ctx, o.Run) }); err != nil {
		return err
	}
	if err := each(cancel, parts, func(p *part) error { return p.readClock(ctx, &p.before) }); err != nil {
		return err
	}
	start := agent.Monotonic() + o.Lead.Nanoseconds()
	if err := each(cancel, parts, func(p *part) error { return p.open(ctx, start) }); err != nil {
		return err
	}
	watch := newWatch(parts, o)
	watch.at(start)
	err := each(cancel, parts, func(p *part) error { return p.finish(ctx) })
	watch.stop()
	if err != nil {
		return err
	}
	return each(cancel, parts, func(p *part) error { return p.readClock(ctx, &p.after) })
}

// each calls f for every part at the same time and waits for all. The first
// failure stops the others.
func each(cancel context.CancelCauseFunc, parts []*part, f func(*part) error) error {
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, p := range parts {
		wg.Go(func() {
			if err := f(p); err != nil {
				once.Do(func() {
					first = &NodeError{Node: p.Name, Err: err}
					cancel(first)
				})
			}
		})
	}
	wg.Wait()
	return first
}

// abandon stops, in order, the nodes that are laid out or run while another node
// failed.
func abandon(parts []*part) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	var wg sync.WaitGroup
	for _, p := range parts {
		if p.running != nil && !p.over {
			wg.Go(func() { _, _ = p.running.Wait(ended) })
		}
	}
	wg.Wait()
}

// part is one node in one run.
type part struct {
	Node
	limit         time.Duration
	running       *agent.Running
	over          bool // running has ended, or was stopped
	stuck         stuck
	before, after agent.Clock
	result        *agent.Result
}

// layOut gets the node to the gate. Laying out files may take minutes; only
// silence ends the wait.
func (p *part) layOut(ctx context.Context, r agent.Run) error {
	return p.alive(ctx, func(ctx context.Context) (err error) {
		if p.running, err = p.Conn.Start(ctx, r); err != nil {
			return err
		}
		err = p.running.Ready(ctx)
		p.over = err != nil
		return err
	})
}

// open sets the time of the start, which is of the host's clock.
func (p *part) open(ctx context.Context, start int64) error {
	return p.alive(ctx, func(context.Context) error { return p.running.Go(start - p.before.OffsetNS) })
}

func (p *part) finish(ctx context.Context) error {
	p.stuck.since = time.Now()
	return p.alive(ctx, func(ctx context.Context) (err error) {
		p.result, err = p.running.Wait(ctx)
		p.over = true
		return err
	})
}

func (p *part) readClock(ctx context.Context, c *agent.Clock) error {
	return p.alive(ctx, func(ctx context.Context) (err error) {
		*c, err = p.Conn.Clock(ctx)
		return err
	})
}

// stuck watches a node that runs.
type stuck struct {
	limit time.Duration
	since time.Time // when something last got done; zero: the run has not begun
	share float64
}

// check is told what the node says of its progress.
func (s *stuck) check(now agent.Progress, at time.Time) error {
	// The share of a job that is bound by time grows by itself; it tells of one that
	// has not begun, or rests.
	if now.IOPS > 0 || now.Stalled == 0 && now.Share != s.share {
		s.since = at
	}
	s.share = now.Share
	if idle := at.Sub(s.since); idle > s.limit {
		return fmt.Errorf("%w in %v, though the node is alive: its disk hangs", errStuck, idle.Round(time.Second))
	}
	return nil
}

var (
	errStuck  = errors.New("no I/O was completed")
	errSilent = errors.New("no sign of life")
	errExited = errors.New("the node ended")
)

// lastWords is how long what a node said last may be on its way when its process
// has ended, and how long the process may take to end after its channel has.
const lastWords = 2 * time.Second

// alive calls f with a context that ends when the node has been silent for too
// long or its process is gone.
func (p *part) alive(ctx context.Context, f func(context.Context) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { p.guard(done, cancel) })
	err := f(inner)
	close(done)
	wg.Wait()
	if err == nil {
		return nil
	}
	if cause := context.Cause(inner); cause != nil && ctx.Err() == nil {
		return cause
	}
	if errors.Is(err, agent.ErrChannel) && p.exited() {
		return fmt.Errorf("%w: %w", errExited, err)
	}
	return err
}

// exited reports whether the process is gone, which may show after its channel's end.
func (p *part) exited() bool {
	select {
	case <-p.Exited:
		return true
	case <-time.After(lastWords):
		return false
	}
}

// giveUp ends what waits for a node that will not answer. Its channel is closed: it
// is not asked to stop, for which it had 10 s.
func (p *part) giveUp(cancel context.CancelCauseFunc, why error) {
	cancel(why)
	_ = p.Conn.Close()
}

func (p *part) guard(done <-chan struct{}, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-p.Exited:
			select {
			case <-done:
			case <-time.After(lastWords):
				p.giveUp(cancel, errExited)
			}
			return
		case <-tick.C:
			if quiet := p.Conn.Quiet(); quiet > p.limit {
				p.giveUp(cancel, fmt.Errorf("%w for %v", errSilent, quiet.Round(time.Second)))
				return
			}
			if !p.stuck.since.IsZero() {
				if err := p.stuck.check(p.running.Progress(), time.Now()); err != nil {
					p.giveUp(cancel, err)
					return
				}
			}
		}
	}
}

// Silent reports whether err is of a node that fell silent, Exited of one whose
// process ended.
func Silent(err error) bool { return errors.Is(err, errSilent) }

// Exited reports whether err is of a node whose process ended.
func Exited(err error) bool { return errors.Is(err, errExited) }

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// silence is the shortest gap between two signs of life that is kept: the agent
// beats each second.
const silence = 1500 * time.Millisecond

// Conn is the lab's end of the channel to one node. Its methods may be called at
// the same time. When the channel ends, every call fails with the reason.
type Conn struct {
	rw    io.ReadWriteCloser
	lines *lines
	wg    sync.WaitGroup

	once   sync.Once
	closed error

	mu       sync.Mutex
	next     int
	calls    map[int]*call
	heard    int64 // monotonic
	gaps     []Stall
	err      error // why the channel ended
	hello    chan struct{}
	greeting Hello
	greeted  bool
}

// call waits for the answer to one request.
type call struct {
	done     chan message // one message
	progress func(Progress)
}

// NewConn begins to listen to a node. Close ends it.
func NewConn(rw io.ReadWriteCloser) *Conn {
	c := &Conn{rw: rw, lines: newLines(rw), calls: map[int]*call{}, heard: Monotonic(), hello: make(chan struct{})}
	c.lines.patience = stopTime // a node that reads nothing must not hold the lab
	c.lines.onCut = c.drop
	c.wg.Go(c.listen)
	return c
}

// Close ends the channel; an agent that is a guest's init then powers the guest off.
// It may be called again.
func (c *Conn) Close() error {
	c.once.Do(func() { c.closed = c.rw.Close() })
	c.wg.Wait()
	return c.closed
}

func (c *Conn) listen() {
	for {
		m, err := c.lines.read()
		if err != nil {
			c.end(err)
			return
		}
		if err := c.take(m); err != nil {
			c.drop(err) // what follows would not be understood
			return
		}
	}
}

// drop ends a channel whose stream is out of step.
func (c *Conn) drop(err error) {
	c.end(err)
	c.once.Do(func() { c.closed = c.rw.Close() })
}

// ErrChannel is in the error of every call whose channel to the node has ended.
var ErrChannel = errors.New("channel to the node")

// end fails all calls, those that come later too. The first reason stays.
func (c *Conn) end(err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("the agent closed the channel")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("%w: %w", ErrChannel, err)
	for id, w := range c.calls {
		delete(c.calls, id)
		close(w.done)
	}
	if !c.greeted {
		c.greeted = true
		close(c.hello)
	}
}

// take handles one message of the node.
func (c *Conn) take(m message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notice()
	switch m.Op {
	case opHello:
		if c.greeted {
			return errors.New("the agent began anew: the guest was reset")
		}
		if err := json.Unmarshal(m.Body, &c.greeting); err != nil {
			return fmt.Errorf("hello: %w", err)
		}
		c.greeting.clean()
		c.greeted = true
		close(c.hello)
	case opProgress:
		var p Progress
		if err := json.Unmarshal(m.Body, &p); err != nil {
			return fmt.Errorf("progress: %w", err)
		}
		if w := c.calls[m.ID]; w != nil && w.progress != nil {
			w.progress(p)
		}
	case opDone:
		if w := c.calls[m.ID]; w != nil {
			delete(c.calls, m.ID)
			w.done <- m
		}
	}
	return nil
}

// notice keeps gaps between signs of life.
func (c *Conn) notice() {
	now := Monotonic()
	if gap := now - c.heard; gap > int64(silence) {
		c.gaps = append(c.gaps, Stall{AtNS: c.heard, TookNS: gap})
	}
	c.heard = now
}

// Silences are the gaps of more than 1.5 s between two signs of life, on the host's
// monotonic clock.
func (c *Conn) Silences() []Stall {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Stall(nil), c.gaps...)
}

// Quiet is how long the node has given no sign of life.
func (c *Conn) Quiet() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(Monotonic() - c.heard)
}

// Hello waits for the node's first message.
func (c *Conn) Hello(ctx context.Context) (Hello, error) {
	select {
	case <-ctx.Done():
		return Hello{}, fmt.Errorf("wait for the agent: %w", context.Cause(ctx))
	case <-c.hello:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return Hello{}, c.err
	}
	return c.greeting, nil
}

// begin sends a request.
func (c *Conn) begin(op string, body any, progress func(Progress)) (int, *call, error) {
	w := &call{done: make(chan message, 1), progress: progress}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return 0, nil, c.err
	}
	c.next++
	id := c.next
	c.calls[id] = w
	c.mu.Unlock()
	if err := c.lines.write(sent{ID: id, Op: op, Body: body}); err != nil {
		c.forget(id)
		return 0, nil, fmt.Errorf("%s: %w", op, err)
	}
	return id, w, nil
}

func (c *Conn) forget(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

// wait returns the answer in into. When ctx ends, an operation of the node is told
// to stop and its answer is waited for, as long as the channel lives.
func (c *Conn) wait(ctx context.Context, op string, id int, w *call, into any) error {
	select {
	case m, ok := <-w.done:
		return c.answer(op, m, ok, into)
	case <-ctx.Done():
	}
	if op != opRun && op != opPrepare {
		c.forget(id)
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	if err := c.lines.write(sent{ID: id, Op: opStop}); err != nil {
		return err
	}
	select {
	case m, ok := <-w.done:
		if err := c.answer(op, m, ok, into); err != nil {
			return err
		}
	case <-time.After(stopTime):
		c.forget(id)
	}
	return fmt.Errorf("%s: %w", op, context.Cause(ctx))
}

// stopTime is what a node gets to finish the I/O in flight when it is told to stop.
const stopTime = 10 * time.Second

func (c *Conn) answer(op string, m message, ok bool, into any) error {
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.err
	}
	if into != nil && len(m.Body) > 0 {
		if err := json.Unmarshal(m.Body, into); err != nil {
			return fmt.Errorf("%s: the agent's answer: %w", op, err)
		}
	}
	if m.Err != "" {
		return errors.New(clean(m.Err))
	}
	return nil
}

// do sends a request and waits for its answer.
func (c *Conn) do(ctx context.Context, op string, body, into any, progress func(Progress)) error {
	id, w, err := c.begin(op, body, progress)
	if err != nil {
		return err
	}
	return c.wait(ctx, op, id, w, into)
}

// pings of one measurement of a clock.
const pings = 12

// pong is the answer to a ping.
type pong struct {
	NowNS int64 `json:"now_ns"`
}

// Clock measures the node's clock against the host's: the shortest of a dozen
// round trips counts, and half of it is the error.
func (c *Conn) Clock(ctx context.Context) (Clock, error) {
	best := Clock{ErrNS: 1 << 62}
	for range pings {
		var p pong
		sent := Monotonic()
		if err := c.do(ctx, opPing, nil, &p, nil); err != nil {
			return best, err
		}
		got := Monotonic()
		if half := (got - sent) / 2; half < best.ErrNS {
			best = Clock{AtNS: sent + half, OffsetNS: sent + half - p.NowNS, ErrNS: half}
		}
	}
	return best, nil
}

// Prepare makes the node's disk ready.
func (c *Conn) Prepare(ctx context.Context, p Prepare) (Prepared, error) {
	var got Prepared
	err := c.do(ctx, opPrepare, p, &got, nil)
	got.clean()
	return got, err
}

// PowerOff ends the node in order.
func (c *Conn) PowerOff(ctx context.Context) error {
	return c.do(ctx, opPowerOff, nil, nil, nil)
}

// Running is a run that a node was told to do.
type Running struct {
	c    *Conn
	id   int
	call *call

	mu    sync.Mutex
	now   Progress
	once  sync.Once
	ready chan struct{}
}

// Start tells the node to run a job file.
func (c *Conn) Start(_ context.Context, r Run) (*Running, error) {
	run := &Running{c: c, ready: make(chan struct{})}
	id, w, err := c.begin(opRun, r, run.progress)
	if err != nil {
		return nil, err
	}
	run.id, run.call = id, w
	return run, nil
}

// progress is called by the one reader of the channel.
func (r *Running) progress(p Progress) {
	r.mu.Lock()
	r.now = p
	r.mu.Unlock()
	if p.Ready {
		r.once.Do(func() { close(r.ready) })
	}
}

// Progress is what the node said last.
func (r *Running) Progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// Ready waits until the node waits at its gate.
func (r *Running) Ready(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case m, ok := <-r.call.done:
		if err := r.c.answer(opRun, m, ok, nil); err != nil {
			return err
		}
		return errors.New("the run ended before it began")
	case <-ctx.Done():
		return r.c.wait(ctx, opRun, r.id, r.call, nil)
	}
}

// Go opens the gate at a time of the node's monotonic clock.
func (r *Running) Go(startNS int64) error {
	return r.c.lines.write(sent{ID: r.id, Op: opGo, Body: Go{StartNS: startNS}})
}

// Wait returns the result. When ctx ends the node stops in order, and the error
// says so.
func (r *Running) Wait(ctx context.Context) (*Result, error) {
	var res Result
	if err := r.c.wait(ctx, opRun, r.id, r.call, &res); err != nil {
		return nil, err
	}
	res.clean()
	return &res, nil
}

package gate

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/agent"
)

// TestMain is a host client when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "lab" && os.Args[2] == "agent" {
		if err := agent.ServeSocket(context.Background(), os.Args[4], agent.Options{Version: "test"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// inside is a node that this process is itself, with a disk.
func inside(t *testing.T, name string, p agent.Prepare) Node {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = agent.Serve(context.Background(), far, agent.Options{Version: "test"})
	}()
	n := Node{Name: name, Conn: agent.NewConn(near), Exited: served}
	t.Cleanup(func() { _ = n.Conn.Close(); <-served })
	prepare(t, n, p)
	return n
}

func prepare(t *testing.T, n Node, p agent.Prepare) {
	t.Helper()
	if _, err := n.Conn.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Conn.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// process is a node that is a process of its own.
func process(t *testing.T, name string, p agent.Prepare) (Node, *agent.HostClient) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h, err := agent.StartHost(t.Context(), self, dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	n := Node{Name: name, Conn: h.Conn(), Exited: h.Exited()}
	prepare(t, n, p)
	return n, h
}

// freeze stops a process when begin is closed, until wait returns.
func freeze(t *testing.T, pid int, begin <-chan struct{}, wait func()) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		<-begin
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
		wait()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	return &wg
}

const write = 1 // the direction

// line is a message of the channel as an agent sees it.
type line struct {
	ID   int             `json:"id,omitempty"`
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
	Err  string          `json:"error,omitempty"`
}

// fake is an agent that does no work: it says what a test wants to hear.
type fake struct {
	clock  func() int64                                 // nil: the host's
	answer func(op string) (err string, ok bool)        // of a request; nil or ok: success
	result func(start int64) agent.Result               // of a run
	dies   func(op string) (channel bool, process bool) // instead of an answer; nil: never
}

// start makes a node of the fake.
func (f *fake) start(t *testing.T, name string) Node {
	t.Helper()
	near, far := net.Pipe()
	exited := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { f.serve(far, exited) })
	n := Node{Name: name, Conn: agent.NewConn(near), Exited: exited}
	t.Cleanup(func() { _ = n.Conn.Close(); wg.Wait() })
	return n
}

func (f *fake) serve(far net.Conn, exited chan struct{}) {
	defer far.Close()
	say := func(id int, op string, body any, err string) {
		text, _ := json.Marshal(body)
		out, _ := json.Marshal(line{ID: id, Op: op, Body: text, Err: err})
		_, _ = far.Write(append(out, '\n'))
	}
	say(0, "hello", agent.Hello{Version: "fake"}, "")
	in := bufio.NewScanner(far)
	var start int64
	run := 0
	for in.Scan() {
		var m line
		if json.Unmarshal(in.Bytes(), &m) != nil {
			return
		}
		if f.dies != nil {
			channel, process := f.dies(m.Op)
			if process {
				close(exited)
			}
			if channel {
				return
			}
			if process {
				continue // the channel is open, nobody answers
			}
		}
		if f.answer != nil {
			if err, ok := f.answer(m.Op); !ok {
				if err != "" {
					say(m.ID, "done", nil, err)
				}
				continue
			}
		}
		switch m.Op {
		case "ping":
			say(m.ID, "done", map[string]int64{"now_ns": f.now()}, "")
		case "run":
			run = m.ID
			say(run, "progress", agent.Progress{Ready: true}, "")
		case "go":
			var g agent.Go
			_ = json.Unmarshal(m.Body, &g)
			start = g.StartNS
			time.Sleep(time.Duration(start - f.now()))
			say(run, "done", f.result(start), "")
		case "stop":
			say(m.ID, "done", agent.Result{Err: "stopped"}, "")
		}
	}
}

func (f *fake) now() int64 {
	if f.clock != nil {
		return f.clock()
	}
	return agent.Monotonic()
}

// steady is a result of constant speed: one I/O of 4 KiB each millisecond.
func steady(took time.Duration) func(int64) agent.Result {
	return func(start int64) agent.Result {
		j := agent.JobResult{Name: "j", Jobs: 1}
		const step = 100 * time.Millisecond
		for at := step; at <= took; at += step {
			p := agent.Point{AtNS: int64(at), TookNS: int64(step)}
			p.IOs[write], p.Bytes[write] = 100, 100*4096
			j.Points = append(j.Points, p)
		}
		return agent.Result{StartNS: start, EndNS: start + int64(took), Jobs: []agent.JobResult{j}}
	}
}

func kill(t *testing.T, h *agent.HostClient) {
	t.Helper()
	if err := syscall.Kill(h.PID(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

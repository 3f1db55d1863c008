package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeQEMU is the other end of a monitor: it answers a command by what answers
// has for it, with %d for the command's number, and everything else by success.
func fakeQEMU(t *testing.T, onEvent func(Event), answers map[string]string) *monitor {
	t.Helper()
	near, far := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer far.Close()
		fmt.Fprintln(far, `{"QMP": {"version": {}, "capabilities": []}}`)
		in := bufio.NewScanner(far)
		for in.Scan() {
			var c struct {
				Execute string
				ID      int
			}
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				t.Errorf("a command that is no JSON: %q", in.Bytes())
				return
			}
			answer, ok := answers[c.Execute]
			if !ok {
				answer = `{"return": {}, "id": %d}`
			}
			if answer == "" {
				return
			}
			fmt.Fprintln(far, strings.ReplaceAll(answer, "%d", fmt.Sprint(c.ID)))
		}
	})
	m, err := newMonitor(t.Context(), near, onEvent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.close(); wg.Wait() })
	return m
}

func TestMonitor(t *testing.T) {
	t.Parallel()
	events := make(chan Event, 10)
	m := fakeQEMU(t, func(e Event) { events <- e }, map[string]string{
		"good":    `{"return": {"status": "running"}, "id": %d}`,
		"refused": `{"error": {"class": "GenericError", "desc": "Device 'x' not found"}, "id": %d}`,
		"odd":     `{"return": 7, "id": %d}`,
		"noisy": `{"timestamp": {"seconds": 5, "microseconds": 7000}, "event": "STOP", "data": {"a": 1}}
{"return": "of another", "id": 99}
{"return": [1,2], "id": %d}`,
		"silent": `{"return": {}, "id": 0}`,
		"quit":   "",
	})
	var status struct{ Status string }
	if err := m.execute(t.Context(), "good", map[string]int{"a": 1}, &status); err != nil || status.Status != "running" {
		t.Errorf("%+v, %v", status, err)
	}
	wantError(t, m.execute(t.Context(), "refused", nil, nil), "QMP refused: Device 'x' not found")
	wantError(t, m.execute(t.Context(), "odd", nil, &status), "QMP odd: its reply: json")
	wantError(t, m.execute(t.Context(), "good", func() {}, nil), "QMP good: json")
	var list []int
	if err := m.execute(t.Context(), "noisy", nil, &list); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if e := <-events; e.Name != "STOP" || !e.At.Equal(time.Unix(5, 7e6)) || string(e.Data) != `{"a": 1}` {
		t.Errorf("event %+v", e)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("enough"))
	defer cancel()
	wantError(t, m.execute(ctx, "silent", nil, nil), "QMP silent: enough")
	m.mu.Lock()
	waiting := len(m.waiting)
	m.mu.Unlock()
	if waiting != 0 {
		t.Errorf("%d commands still wait", waiting)
	}
	wantError(t, m.execute(t.Context(), "quit", nil, nil), "QEMU's monitor is closed")
	wantError(t, m.execute(t.Context(), "good", nil, nil), "QEMU's monitor is closed")
}

// TestMonitorManyAtOnce: answers go to who asked.
func TestMonitorManyAtOnce(t *testing.T) {
	t.Parallel()
	m := fakeQEMU(t, func(Event) {}, map[string]string{"id": `{"return": %d, "id": %d}`})
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range 50 {
		wg.Go(func() {
			var n int
			if err := m.execute(t.Context(), "id", nil, &n); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[n] {
				t.Errorf("answer %d came twice", n)
			}
			seen[n] = true
		})
	}
	wg.Wait()
}

// TestMonitorNotRead: a QEMU that hangs does not hang the lab.
func TestMonitorNotRead(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if m, err := newMonitor(ctx, near, func(Event) {}); err == nil {
		m.close()
		t.Error("a monitor that nobody reads was opened")
	}
	if took := time.Since(begun); took < 20*time.Millisecond || took > writeTimeout {
		t.Errorf("it took %v", took)
	}
}

// FuzzMonitor: whatever comes, reading ends, and a command that waits ends too.
func FuzzMonitor(f *testing.F) {
	for _, s := range []string{
		"", "\n", "{}", "[]", "nul", `{"QMP":{}}` + "\n" + `{"return":{},"id":1}`,
		`{"event":"VSERPORT_CHANGE","data":{"id":"agent","open":true}}` + "\n" + `{"event":"VSERPORT_CHANGE","data":{"id":"agent","open":true}}`,
		`{"event":"X","timestamp":{"seconds":9223372036854775807,"microseconds":-1}}`,
		`{"error":{"desc":"no"},"id":1}`, `{"return":[1],"id":1.5}`, `{"id":"1","return":{}}`, "\xff\xfe",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m := &monitor{conn: discard{bytes.NewReader(text)}, onEvent: func(Event) {}, done: make(chan struct{}), waiting: map[int]chan message{}}
		answer := make(chan message, 1)
		if _, err := m.send(t.Context(), "query", nil, answer); err != nil {
			t.Fatal(err)
		}
		m.read()
		if m.err == nil {
			t.Error("reading ended without a reason")
		}
		if _, err := m.send(t.Context(), "query", nil, answer); err == nil {
			t.Error("a command was sent to a monitor that is closed")
		}
	})
}

// discard is a connection with a text to read.
type discard struct{ io.Reader }

func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) Close() error                     { return nil }
func (discard) LocalAddr() net.Addr              { return nil }
func (discard) RemoteAddr() net.Addr             { return nil }
func (discard) SetDeadline(time.Time) error      { return nil }
func (discard) SetReadDeadline(time.Time) error  { return nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }

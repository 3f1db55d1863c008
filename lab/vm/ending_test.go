package vm

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// ended is a guest whose QEMU, a shell that ends at once, has a monitor that says
// text only when the process is gone.
func ended(t *testing.T, text string) *VM {
	t.Helper()
	near, far := net.Pipe()
	v := newVM(t.TempDir())
	var err error
	if v.process, err = start([]string{"/bin/sh", "-c", "exit 3"}, v.dir, nil); err != nil {
		t.Fatal(err)
	}
	v.monitor = &monitor{conn: near, onEvent: v.event, done: make(chan struct{}), waiting: map[int]chan message{}}
	go v.monitor.read()
	go v.watch()
	<-v.process.Done()
	select {
	case <-v.Exited():
		t.Error("Exited was closed before the last events were read")
	case <-time.After(20 * time.Millisecond):
	}
	fmt.Fprint(far, text)
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	<-v.Exited()
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

// TestEnding: why a guest ended is known when its end is.
func TestEnding(t *testing.T) {
	t.Parallel()
	shutdown := func(reason string) string {
		return `{"event": "SHUTDOWN", "data": {"guest": true, "reason": "` + reason + `"}}` + "\n"
	}
	for _, c := range []struct{ said, want string }{
		{"", ""},
		{shutdown("guest-shutdown"), ": the guest powered off"},
		{shutdown("guest-reset"), ": the guest reset itself"},
		{shutdown("host-signal") + shutdown("host-qmp-quit"), ": it was ended by a signal"},
		{shutdown("new-cause"), ": new-cause"},
		{`{"event": "GUEST_PANICKED", "data": {"action": "pause"}}` + "\n" + shutdown("guest-shutdown"), ": the guest's kernel panicked"},
		{shutdown("a\\nb\\u001b[2J"), ": b[2J"},
		{strings.Repeat(`{"event": "RTC_CHANGE", "data": {"offset": 1}}`+"\n", maxEvents+10) + shutdown("guest-panic"), ": the guest's kernel panicked"},
		{`{"event": "SHUTDOWN", "data": 7}` + "\n", ""},
	} {
		v := ended(t, c.said)
		if got := v.Ending(); got != "QEMU ended (exit status 3)"+c.want {
			t.Errorf("%.80s: %q, want %q", c.said, got, c.want)
		}
		if n := len(v.Events()); n > maxEvents {
			t.Errorf("%d events were kept", n)
		}
	}
}

// TestEndingHeld: somebody else who holds QEMU's end of the monitor does not keep
// its end from being noticed, and a guest that runs has none.
func TestEndingHeld(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	defer far.Close()
	v := newVM(t.TempDir())
	if v.Ending() != "" {
		t.Error("a guest that was never started has ended")
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if v.process, err = start([]string{sleep, "600"}, v.dir, nil); err != nil {
		t.Fatal(err)
	}
	v.monitor = &monitor{conn: near, onEvent: v.event, done: make(chan struct{}), waiting: map[int]chan message{}}
	go v.monitor.read()
	go v.watch()
	if got := v.Ending(); got != "" {
		t.Errorf("it runs, and %q", got)
	}
	if err := v.process.kill(); err != nil {
		t.Fatal(err)
	}
	<-v.Exited()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// TestPanic: a kernel that panics is told from one that resets.
func TestPanic(t *testing.T) {
	t.Parallel()
	needQEMU(t)
	c := guest(t, kit(t, panicKit))
	_, err := Boot(t.Context(), c)
	wantError(t, err, "guest a: QEMU ended: the guest's kernel panicked; its console: ")
	wantError(t, err, "Kernel panic - not syncing: sysrq triggered crash")
	left(t, c)
}

package vm

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// maxEvents bounds the events kept: a guest can make QEMU send any number.
const maxEvents = 1000

// ending is what QEMU told of a guest's end.
type ending struct {
	panicked bool
	reason   string // of the first SHUTDOWN: QEMU's ShutdownCause
}

// reasons are QEMU's ShutdownCauses in words.
var reasons = map[string]string{
	"guest-shutdown":  "the guest powered off",
	"guest-reset":     "the guest reset itself",
	"guest-panic":     "the guest's kernel panicked",
	"subsystem-reset": "a part of the machine was reset",
	"host-qmp-quit":   "the lab ended it",
	"host-signal":     "it was ended by a signal",
	"host-error":      "an error of the host",
}

// words say why the guest ended, "" if QEMU has told nothing.
func (e ending) words() string {
	switch {
	case e.panicked:
		return reasons["guest-panic"]
	case e.reason == "":
		return ""
	case reasons[e.reason] != "":
		return reasons[e.reason]
	}
	return lastLines(e.reason, 1)
}

// event keeps what QEMU told, and notices that the agent has opened its port.
func (v *VM) event(e Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.events) < maxEvents {
		v.events = append(v.events, e)
	}
	// What counts is noticed behind a thousand others, too.
	switch e.Name {
	case "VSERPORT_CHANGE":
		var port struct {
			ID   string `json:"id"`
			Open bool   `json:"open"`
		}
		if json.Unmarshal(e.Data, &port) == nil && port.ID == idAgent && port.Open {
			v.once.Do(func() { close(v.opened) })
		}
	case "GUEST_PANICKED", "GUEST_CRASHLOADED":
		v.ending.panicked = true
	case "SHUTDOWN":
		var end struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal(e.Data, &end) == nil && v.ending.reason == "" {
			v.ending.reason = end.Reason
		}
	}
}

// Events are what QEMU told by itself so far, the first thousand.
func (v *VM) Events() []Event {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.events)
}

// Ending says why and how the guest ended, such as "QEMU ended: the guest powered
// off"; "" while it runs. It is one line, and complete when Exited is closed.
func (v *VM) Ending() string {
	if v.process == nil || !v.process.Ended() {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	text := []string{"QEMU " + v.process.ending()}
	if why := v.ending.words(); why != "" {
		text = append(text, why)
	}
	return strings.Join(text, ": ")
}

// watch notices the end of QEMU, whose last events may be on their way then: why a
// guest ended is in the last one.
func (v *VM) watch() {
	defer close(v.exited)
	<-v.process.Done()
	v.console.drained(lastWords)
	if v.monitor == nil {
		return
	}
	select {
	case <-v.monitor.done:
	case <-time.After(lastWords): // somebody else holds QEMU's end
	}
}

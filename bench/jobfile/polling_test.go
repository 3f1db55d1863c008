package jobfile

import (
	"strings"
	"testing"
)

// hipri is an option of few engines; fio knows it under no other.
func TestHipri(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		lines  string
		share  int    // of the I/O that is polled for, in percent
		calls  bool   // by each call
		warned string // and, by --strict-fio, an error
	}{
		{"ioengine=io_uring\ndirect=1\nhipri", 100, false, ""},
		{"ioengine=io_uring\ndirect=1\nhipri=0", 0, false, ""},
		{"ioengine=vmdisk\nbuffered=0\nhipri=1", 100, false, ""},
		{"ioengine=pvsync2\nhipri", 100, true, ""},
		{"hipri\nioengine=pvsync2\nhipri_percentage=40", 40, true, ""},
		{"ioengine=pvsync2\nhipri\nhipri_percentage=0", 0, true, ""},
		{"ioengine=pvsync2\nhipri_percentage=40", 0, true, ""},
		{"ioengine=io_uring\nhipri", 0, false, "add direct=1"},
		{"ioengine=libaio\ndirect=1\nhipri", 0, false, "ioengine libaio does not have it"},
		{"direct=1\nhipri", 0, false, "ioengine psync does not have it"},
		{"ioengine=io_uring\ndirect=1\nhipri\nhipri_percentage=40", 100, false, "ioengine io_uring does not have it, only pvsync2"},
	} {
		p, err := plan(t, "[j]\n"+tt.lines)
		if err != nil {
			t.Errorf("%q: %v", tt.lines, err)
			continue
		}
		j, share := p.Jobs[0], 0
		if j.Hipri {
			share = 100
			if j.PollsByCalls() {
				share = j.HipriShare
			}
		}
		if share != tt.share || j.PollsByCalls() != tt.calls {
			t.Errorf("%q: %d %% polled, by calls %v; want %d %%, %v", tt.lines, share, j.PollsByCalls(), tt.share, tt.calls)
		}
		warned := ""
		if len(p.Notes) > 0 && p.Notes[0].Warning {
			warned = p.Notes[0].Text
		}
		if !strings.Contains(warned, tt.warned) || tt.warned == "" && len(p.Notes) > 0 {
			t.Errorf("%q: notes %q, want %q", tt.lines, p.Notes, tt.warned)
		}
		strict := Parser{Strict: true}
		if err := strict.Bytes("job.fio", []byte("[j]\n"+tt.lines)); err != nil {
			t.Fatal(err)
		}
		_, err = strict.Resolve(nil, false)
		if (err != nil) != (tt.warned != "") || err != nil && !strings.Contains(err.Error(), tt.warned) {
			t.Errorf("%q, strictly: %v", tt.lines, err)
		}
	}
	if _, err := plan(t, "[j]\nioengine=pvsync2\nhipri_percentage=101"); err == nil {
		t.Error("hipri_percentage=101 was taken")
	}
}

// The resolved job shows what is polled.
func TestHipriIsDescribed(t *testing.T) {
	t.Parallel()
	has := map[KV]bool{}
	for _, kv := range one(t, "ioengine=pvsync2\nhipri\nhipri_percentage=40").Describe() {
		has[kv] = true
	}
	if !has[KV{"hipri", "true"}] || !has[KV{"hipri_percentage", "40"}] {
		t.Errorf("described as %v", has)
	}
}

package spec

import (
	"strings"
	"testing"
)

// TestAxesRoundTrip: what a row writes it reads, and every axis has a default that
// Defaults has as well.
func TestAxesRoundTrip(t *testing.T) {
	t.Parallel()
	values := map[string][]string{
		"backing":     {"copy", "device", "device:/dev/sdx;/dev/sdy", "device:0000:44:00.0", "url:nbd://host/x", "url:mem:1G"},
		"filter":      {"none", "stats", "rate:rate=1M", "a@delay:read=1ms,write=2s readonly", "log:logfile=/a@b"},
		"poll-max-ns": {"default", "0", "32768"}, "queues": {"default", "1", "1024"},
		"cluster-size": {"default", "512", "64K", "2M"}, "l2-cache-size": {"default", "16M"},
		"numa": {"off", "0:0", "1:12"},
		"bs":   {"job", "4k", "8k,64k"}, "iodepth": {"job", "256"}, "numjobs": {"job", "4"}, "rw": {"job", "randrw"},
	}
	defaults := Defaults()
	for i := range axes {
		a := &axes[i]
		list := values[a.name]
		if list == nil {
			list = strings.Split(a.form, ", ")
		}
		for _, v := range append(list, a.get(&defaults)) {
			s := Defaults()
			if err := a.set(&s, v); err != nil {
				t.Errorf("%s=%s: %v", a.name, v, err)
			} else if got := a.get(&s); got != v {
				t.Errorf("%s=%s is written back as %s", a.name, v, got)
			}
		}
		delete(values, a.name)
		s := defaults
		if err := a.set(&s, a.get(&defaults)); err != nil || s != defaults {
			t.Errorf("the default of %s gives %+v, %v", a.name, s, err)
		}
	}
	for name := range values {
		t.Errorf("no axis %s", name)
	}
}

func TestShortest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ axis, value, want string }{
		{"iothread", "yes", "on"}, {"iothread", "true", "on"}, {"iothread", "no", "off"}, {"extended-l2", "false", "off"},
		{"cluster-size", "65536", "64K"}, {"cluster-size", "2048KiB", "2M"}, {"l2-cache-size", "1.5M", "1536K"},
		{"numa", "1", "1:1"}, {"filter", "  stats   log ", "stats log"}, {"queues", "007", "7"}, {"bs", " 4k", "4k"},
	} {
		a, ok := findAxis(c.axis)
		if !ok {
			t.Fatalf("no axis %s", c.axis)
		}
		if got, err := a.shortest(c.value); err != nil || got != c.want {
			t.Errorf("%s=%s is %q, %v; want %s", c.axis, c.value, got, err, c.want)
		}
	}
}

func TestAxisErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ axis, value, want string }{
		{"backing", "relfink", `"relfink" is none of copy,`}, {"backing", "relfink", `(did you mean "reflink"?)`},
		{"backing", "device:", `device "": want a path`}, {"backing", "device:sdx", `device "sdx": want a path`},
		{"backing", "device:/dev/../x", `want a path`}, {"backing", "device:/dev/x;/dev/x", `given twice`},
		{"backing", "url:ndb://x/y", `unknown scheme "ndb" (did you mean "nbd"?)`}, {"backing", "url:", `disk URL "": the path is empty`},
		{"device", "virtio", `"virtio" is none of`}, {"device", "virtio_blk", `did you mean "virtio-blk"?`},
		{"cluster-size", "4M", `want a power of two from 512 to 2M`}, {"cluster-size", "65000", `power of two`}, {"cluster-size", "x", `bad size "x"`},
		{"l2-cache-size", "1K", `1K is no cache size: want 4K to 64G`},
		{"iothread", "1", `"1" is neither on nor off`}, {"poll-max-ns", "-1", `no number from 0 to`}, {"queues", "0", `no number from 1 to 1024`},
		{"numa", "0:", `"0:" is neither off nor node numbers`}, {"numa", "a", `neither off`}, {"numa", "0:1:2", `neither off`},
		{"filter", "", `no filter: want none or NAME`}, {"filter", "dealy:read=1ms", `filter "dealy" is none of`}, {"filter", "dealy", `(did you mean "delay"?)`},
		{"filter", "ab@stats", `want NODE@FILTER with a node's name`}, {"filter", "delay:x", `want KEY=VALUE`},
		{"bs", "x", `option bs:`}, {"iodepth", "0", `option iodepth:`}, {"numjobs", "-1", `option numjobs:`}, {"rw", "raed", `option rw:`},
		{"guest-scheduler", "cfq", `"cfq" is none of default, none,`}, {"server", "qemu-ndb", `did you mean "qemu-nbd"?`},
	} {
		a, _ := findAxis(c.axis)
		if v, err := a.shortest(c.value); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %q, %v; want %s", c.axis, c.value, v, err, c.want)
		}
	}
}

//go:build without_null && without_nbd && without_qcow2 && without_delay

package diskurl

import (
	"errors"
	"testing"
)

// TestLeftOut: what this build lacks is refused for that.
func TestLeftOut(t *testing.T) {
	for name, built := range map[string]bool{"null": false, "nbd": false, "nbds+unix": false, "qcow2": false, "delay": false, "mem": true, "raw": true, "cow": true, "file": true} {
		if Built(name) != built {
			t.Errorf("Built(%s) = %v", name, !built)
		}
	}
	for _, c := range []struct {
		url string
		o   Options
	}{
		{"null:1M", Options{}}, {"nbd://h/e", Options{}}, {"raw:nbds://h/e?socket=", Options{}}, {"qcow2:mem:1M", Options{}},
		{"mem:1M", Options{Format: "qcow2"}}, {"mem:1M", Options{Filters: []string{"delay:read=1"}}},
	} {
		u, err := Parse(c.url)
		if err != nil || u.String() != c.url {
			t.Errorf("Parse(%s) = %s, %v", c.url, u, err)
		}
		if _, err := Open(t.Context(), c.url, c.o); !errors.Is(err, ErrNotBuilt) {
			t.Errorf("Open(%s, %v): %v", c.url, c.o.Filters, err)
		}
	}
}

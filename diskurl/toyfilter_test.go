package diskurl

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// A filter that is added by this file alone.
var _ = addFilter(&filter{
	name: "toyfilter", summary: "refuse flushes, in some mood",
	keepsBase: true,
	keys:      []Key{{Name: "mood", Values: []string{"bad", "good"}, Help: "good: as many as one likes"}},
	build: func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, p.choice("mood"), child, func(d *disk.Disk, mood string) (*disk.Disk, error) {
			return disk.New(toyFilter{child, mood == "bad"}, d.Name()), nil
		})
	},
})

type toyFilter struct {
	*disk.Disk
	bad bool
}

func (f toyFilter) Flush(ctx context.Context) error {
	if f.bad {
		return errors.New("in a bad mood")
	}
	return f.Disk.Flush(ctx)
}

// ReadAt, WriteAt and the rest are the disk's below, whose Disk above has the checks.

func TestToyFilter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), path, Options{Filters: []string{"toyfilter:mood=good"}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.Info().ReadOnly || d.Flush(t.Context()) != nil {
		t.Errorf("the disk below a filter that keeps it is open for writing, or %v", d.Flush(t.Context()))
	}
	bad, err := Open(t.Context(), "mem:1M", Options{Filters: []string{"toyfilter", "noextents"}})
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if err := bad.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "bad mood") {
		t.Errorf("flush: %v", err)
	}
	for _, c := range []struct{ filter, want string }{{"toyfilter:mood=odd", "none of bad, good"}, {"toyfiltre", `did you mean "toyfilter"`}} {
		if _, err := Open(t.Context(), "mem:1M", Options{Filters: []string{c.filter}}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.filter, err)
		}
	}
}

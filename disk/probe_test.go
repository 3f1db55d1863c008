package disk_test

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
)

// probe is a driver that notes what reaches it and answers as it is told.
type probe struct {
	info disk.Info
	data []byte
	// before, if not nil, runs before each operation; its error is the answer.
	before func(ctx context.Context, call string) error
	// extents is the answer to every query of a map.
	extents []disk.Extent

	mu    sync.Mutex
	calls []string
}

func newProbe(in disk.Info) *probe { return &probe{info: in, data: make([]byte, in.Size)} }

func flagNames(f disk.Flags) (s string) {
	for _, x := range []struct {
		flag disk.Flags
		name string
	}{{disk.FUA, " fua"}, {disk.MayTrim, " trim"}, {disk.FastOnly, " fast"}} {
		if f&x.flag != 0 {
			s += x.name
		}
	}
	return s
}

func (p *probe) call(ctx context.Context, call string) error {
	if p.before != nil {
		if err := p.before(ctx, call); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
	return nil
}

// take returns the calls so far and forgets them.
func (p *probe) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.calls
	p.calls = nil
	return calls
}

func (p *probe) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := p.take(); len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Errorf("%s: the driver saw\n     %q\nwant %q", what, got, want)
	}
}

func (p *probe) Info() disk.Info { return p.info }

func (p *probe) ReadAt(ctx context.Context, b []byte, off int64) error {
	if err := p.call(ctx, fmt.Sprintf("read %d+%d", off, len(b))); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	copy(b, p.data[off:])
	return nil
}

func (p *probe) WriteAt(ctx context.Context, b []byte, off int64, f disk.Flags) error {
	if err := p.call(ctx, fmt.Sprintf("write %d+%d%s", off, len(b), flagNames(f))); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	copy(p.data[off:], b)
	return nil
}

func (p *probe) Zero(ctx context.Context, off, n int64, f disk.Flags) error {
	if err := p.call(ctx, fmt.Sprintf("zero %d+%d%s", off, n, flagNames(f))); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.data[off : off+n])
	return nil
}

func (p *probe) Trim(ctx context.Context, off, n int64, f disk.Flags) error {
	return p.call(ctx, fmt.Sprintf("trim %d+%d%s", off, n, flagNames(f)))
}

func (p *probe) Flush(ctx context.Context) error { return p.call(ctx, "flush") }

func (p *probe) Extents(ctx context.Context, m disk.MapName, off, n int64, dst []disk.Extent) ([]disk.Extent, error) {
	err := p.call(ctx, fmt.Sprintf("extents %s %d+%d", m, off, n))
	return append(dst, p.extents...), err
}

func (p *probe) Close() error { return p.call(context.Background(), "close") }

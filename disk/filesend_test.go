package disk

import (
	"context"
	"errors"
	"testing"
)

// sender records what a FileSender is asked.
type sender struct {
	Driver
	info  Info
	parts []FileRange
	offs  []int64
}

func (s *sender) Info() Info { return s.info }

func (s *sender) WriteFromFile(_ context.Context, off int64, src FileRange, f Flags) error {
	if f != 0 {
		return ErrFlags
	}
	s.parts, s.offs = append(s.parts, src), append(s.offs, off)
	return nil
}

func TestWriteFromFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := &sender{info: Info{Size: 10000, Min: 512, MaxIO: 2048}}
	d := New(s, "d")
	if err := d.WriteFromFile(ctx, 512, FileRange{FD: 3, Off: 7, Len: 4096 + 512}, FUA); err != nil {
		t.Fatal(err)
	}
	if len(s.parts) != 3 || s.parts[2].FD != 3 || s.parts[2].Off != 7+4096 || s.parts[2].Len != 512 || s.offs[2] != 512+4096 {
		t.Errorf("%+v %v", s.parts, s.offs)
	}
	for _, c := range []struct {
		off, n int64
		f      Flags
		want   error
	}{
		{1, 512, 0, errors.ErrUnsupported},
		{0, 511, 0, errors.ErrUnsupported},
		{0, 10001, 0, ErrRange},
		{0, 512, MayTrim, ErrFlags},
	} {
		if err := d.WriteFromFile(ctx, c.off, FileRange{Len: c.n}, c.f); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	s.info.ReadOnly = true
	d.Refresh()
	if err := d.WriteFromFile(ctx, 0, FileRange{Len: 512}, 0); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
	plain := New(struct{ Driver }{&sender{info: Info{Size: 512}}}, "p")
	if err := plain.WriteFromFile(ctx, 0, FileRange{Len: 512}, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if len(s.parts) != 3 {
		t.Error("a refused write reached the driver")
	}
}

package disktest

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// cancelled: under a cancelled context an operation succeeds or says so, and the
// disk works on.
func (s *suite) cancelled() {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	p := make([]byte, 70_000)
	calls := map[string]func() error{
		"read":  func() error { return s.d.ReadAt(ctx, p, 100) },
		"cache": func() error { return s.d.Cache(ctx, 0, 65536) },
		"extents": func() error {
			_, err := s.d.Extents(ctx, disk.Allocation, 0, 65536, nil)
			return err
		},
	}
	if s.writes {
		calls["write"] = func() error { return s.d.WriteAt(ctx, p, 100, 0) }
		calls["zero"] = func() error { return s.d.Zero(ctx, 100, 70_000, 0) }
		calls["trim"] = func() error { return s.d.Trim(ctx, 0, 65536, 0) }
		calls["flush"] = func() error { return s.d.Flush(ctx) }
	}
	for name, call := range calls {
		if err := call(); err != nil && !errors.Is(err, context.Canceled) {
			s.Errorf("%s under a cancelled context: %v", name, err)
		}
	}
	s.get(100, 70_000)
	if s.writes {
		s.put(bytesFor(1, 70_000), 100)
		s.ok("flush after a cancelled one", s.d.Flush(s.ctx))
	}
}

const scribble = 0xee // even, so never in bytesFor

// buffers: once a call has returned, cancelled or not, nobody touches its buffer.
func (s *suite) buffers() {
	const n, count = 65536, 40
	s.put(bytesFor(1, n), 0)
	var after [][]byte
	for i := range count {
		ctx, cancel := context.WithTimeout(s.ctx, time.Duration(i%10)*20*time.Microsecond)
		p := bytesFor(int64(2+i), n)
		var err error
		if i%2 == 0 {
			err = s.d.WriteAt(ctx, p, 0, 0)
		} else {
			err = s.d.ReadAt(ctx, p, 0)
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.Fatalf("with a deadline: %v", err)
		}
		for j := range p {
			p[j] = scribble
		}
		after = append(after, p)
	}
	s.ok("flush", s.d.Flush(s.ctx))
	if bytes.IndexByte(s.get(0, n), scribble) >= 0 {
		s.Error("a write used its buffer after it had returned")
	}
	for i, p := range after {
		if !bytes.Equal(p, bytes.Repeat([]byte{scribble}, n)) {
			s.Errorf("call %d touched its buffer after it had returned", i)
		}
	}
}

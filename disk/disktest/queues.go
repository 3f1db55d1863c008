package disktest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// queueOf opens a queue with this goroutine as its owner until the check ends.
func (s *suite) queueOf(depth int) disk.Queue {
	s.Helper()
	runtime.LockOSThread()
	q, err := s.d.NewQueue(depth)
	s.ok("new queue", err)
	return q
}

func (s *suite) closeQueue(q disk.Queue) {
	s.Helper()
	s.ok("close queue", q.Close())
	runtime.UnlockOSThread()
}

// drive submits ops and reaps until all are complete; results are by tag, which
// must be the index.
func (s *suite) drive(q disk.Queue, ops []disk.Op) []error {
	s.Helper()
	results := make([]error, len(ops))
	seen := make([]bool, len(ops))
	dst := make([]disk.Completion, 3)
	for sent, got := 0, 0; got < len(ops); {
		n, err := q.Submit(ops[sent:])
		s.ok("submit", err)
		sent += n
		m, err := q.Reap(s.ctx, 1, dst)
		s.ok("reap", err)
		if n == 0 && m == 0 {
			s.Fatalf("the queue is busy with nothing to reap: %d sent, %d done of %d", sent, got, len(ops))
		}
		for _, c := range dst[:m] {
			if c.Tag >= uint64(sent) || seen[c.Tag] {
				s.Fatalf("completion of tag %d, which is not in flight", c.Tag)
			}
			seen[c.Tag], results[c.Tag] = true, c.Err
			got++
		}
	}
	return results
}

// queue: reads, writes, zeroes, trims and flushes, aligned and not, more of
// them than the depth.
func (s *suite) queue() {
	q := s.queueOf(4)
	defer s.closeQueue(q)
	mem := make([]byte, 1<<20)
	s.ok("register", q.Register([][]byte{mem}))
	type place struct{ off, n int64 }
	places := []place{{0, 4096}, {8192, 512}, {20_001, 777}, {65536, 65536}, {140_000, 30_000}, {s.d.Size() - 4096, 4096}, {s.d.Size() - 9001, 1}}
	want := make([][]byte, len(places))
	var changes, reads []disk.Op
	at := int64(0)
	for i, p := range places {
		want[i] = s.opt.initial(p.off, p.n)
		if s.writes {
			data := mem[at : at+p.n]
			copy(data, bytesFor(int64(i), p.n))
			if !s.opt.Discards {
				want[i] = bytes.Clone(data)
			}
			half := int(p.n / 2)
			changes = append(changes, disk.Op{Kind: disk.Write, Off: p.off, Len: p.n, Vec: [][]byte{data[:half], data[half:]}, Buf: 1, Flags: disk.FUA})
		}
		at += p.n
		reads = append(reads, disk.Op{Kind: disk.Read, Off: p.off, Len: p.n, Vec: [][]byte{mem[at : at+p.n]}, Buf: 1, Tag: uint64(i)})
		at += p.n
	}
	if s.writes {
		changes = append(changes, disk.Op{Kind: disk.Zero, Off: 300_000, Len: 65_000, Flags: disk.MayTrim},
			disk.Op{Kind: disk.Trim, Off: 400_000, Len: 65536}, disk.Op{Kind: disk.Flush}, disk.Op{Kind: disk.Write, Off: 5})
		for i := range changes {
			changes[i].Tag = uint64(i)
		}
		s.ok("queued changes", errors.Join(s.drive(q, changes)...))
	}
	s.ok("queued reads", errors.Join(s.drive(q, reads)...))
	for i, op := range reads {
		if j := firstDifference(op.Vec[0], want[i]); j >= 0 {
			s.Errorf("queued read differs at offset %d", op.Off+int64(j))
		}
	}
	if s.writes && !s.opt.Discards {
		s.holds("queued zero", 300_000, make([]byte, 65_000))
	}
}

func (s *suite) queueLimits() {
	for _, depth := range []int{0, -1, 1 << 20} {
		if _, err := s.d.NewQueue(depth); err == nil {
			s.Errorf("a queue of depth %d was made", depth)
		}
	}
	q := s.queueOf(2)
	defer s.closeQueue(q)
	n, err := q.Reap(s.ctx, 1, make([]disk.Completion, 4))
	if n != 0 || err != nil {
		s.Errorf("reaping an idle queue: %d, %v", n, err)
	}
	bufs := make([]byte, 8*4096)
	ops := make([]disk.Op, 8)
	for i := range ops {
		ops[i] = disk.Op{Kind: disk.Read, Off: int64(i) * 4096, Len: 4096, Vec: [][]byte{bufs[i*4096:][:4096]}, Tag: uint64(i)}
	}
	if n, err := q.Submit(ops); err != nil || n < 1 || n > 2 {
		s.Errorf("a queue of depth 2 took %d of 8 operations, %v", n, err)
	}
	s.reapAll(q)
}

// reapAll waits until nothing is in flight.
func (s *suite) reapAll(q disk.Queue) {
	s.Helper()
	dst := make([]disk.Completion, 4)
	for {
		n, err := q.Reap(s.ctx, 1, dst)
		s.ok("reap", err)
		for _, c := range dst[:n] {
			s.ok("queued operation", c.Err)
		}
		if n == 0 {
			return
		}
	}
}

// queueRefusals: a wrong operation completes with the error that the method gives.
func (s *suite) queueRefusals() {
	q := s.queueOf(4)
	defer s.closeQueue(q)
	p := make([]byte, 4096)
	vec := [][]byte{p}
	change := s.changeError(disk.ErrRange)
	cases := []struct {
		op   disk.Op
		want error
	}{
		{disk.Op{Kind: disk.Read, Off: s.d.Size() - 1, Len: 4096, Vec: vec}, disk.ErrRange},
		{disk.Op{Kind: disk.Read, Off: -4096, Len: 4096, Vec: vec}, disk.ErrRange},
		{disk.Op{Kind: disk.Read, Off: 0, Len: 8192, Vec: vec}, nil},
		{disk.Op{Kind: 99}, nil},
		{disk.Op{Kind: disk.Write, Off: s.d.Size(), Len: 4096, Vec: vec}, change},
		{disk.Op{Kind: disk.Zero, Off: s.d.Size(), Len: 4096}, change},
		{disk.Op{Kind: disk.Trim, Off: 1<<63 - 1, Len: 4096}, change},
		{disk.Op{Kind: disk.Write, Off: 0, Len: 4096, Vec: vec, Flags: disk.FastOnly}, s.changeError(disk.ErrFlags)},
	}
	ops := make([]disk.Op, len(cases))
	for i := range cases {
		ops[i] = cases[i].op
		ops[i].Tag = uint64(i)
	}
	for i, err := range s.drive(q, ops) {
		switch want := cases[i].want; {
		case err == nil:
			s.Errorf("case %d: a wrong operation succeeded", i)
		case want != nil && !errors.Is(err, want):
			s.Errorf("case %d: got %v, want %v", i, err, want)
		}
	}
}

// queueWatch: a descriptor that becomes readable ends a Reap.
func (s *suite) queueWatch() {
	r, w, err := os.Pipe()
	s.ok("pipe", err)
	defer r.Close()
	defer w.Close()
	q := s.queueOf(2)
	defer s.closeQueue(q)
	s.ok("watch", q.WatchFD(int(r.Fd()), 77))
	for round := range 3 {
		if _, err := w.Write([]byte{1}); err != nil {
			s.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
		dst := make([]disk.Completion, 2)
		n, err := q.Reap(ctx, 1, dst)
		cancel()
		if n != 1 || err != nil || dst[0].Tag != 77 || dst[0].Err != nil {
			s.Fatalf("round %d: reaped %d, %v, %+v", round, n, err, dst[0])
		}
		if _, err := r.Read(make([]byte, 8)); err != nil {
			s.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if n, err := q.Reap(ctx, 1, make([]disk.Completion, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		s.Errorf("a cancelled reap: %d, %v", n, err)
	}
}

// queueClose: Close waits for what is in flight, Cancel harms nothing, and the
// disk lives on.
func (s *suite) queueClose() {
	q := s.queueOf(8)
	data := bytesFor(1, 8*65536)
	ops := make([]disk.Op, 8)
	for i := range ops {
		ops[i] = disk.Op{Kind: disk.Write, Off: int64(i) * 65536, Len: 65536, Vec: [][]byte{data[i*65536:][:65536]}, Tag: uint64(i)}
	}
	n, err := q.Submit(ops)
	s.ok("submit", err)
	q.Cancel(3)
	q.Cancel(12345)
	s.closeQueue(q)
	for i := range data {
		data[i] = scribble
	}
	for i := range n {
		got := s.get(int64(i)*65536, 65536)
		if bytes.IndexByte(got, scribble) >= 0 {
			s.Fatal("a write was still at work after Close")
		}
	}
	s.put(bytesFor(2, 65536), 0)
	s.holds("after the queue", 0, bytesFor(2, 65536))
}

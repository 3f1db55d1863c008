package disk

import (
	"context"
	"testing"
)

// ram is the smallest driver that can lose a neighbour's bytes: blocks of 512.
type ram struct {
	data []byte
}

func (r *ram) Info() Info {
	return Info{Size: int64(len(r.data)), Min: 512, Zero: Native, Volatile: true}
}
func (r *ram) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, r.data[off:])
	return nil
}
func (r *ram) WriteAt(_ context.Context, p []byte, off int64, _ Flags) error {
	copy(r.data[off:], p)
	return nil
}
func (r *ram) Zero(_ context.Context, off, n int64, _ Flags) error {
	clear(r.data[off : off+n])
	return nil
}
func (r *ram) Trim(context.Context, int64, int64, Flags) error { return nil }
func (r *ram) Flush(context.Context) error                     { return nil }
func (r *ram) Extents(context.Context, MapName, int64, int64, []Extent) ([]Extent, error) {
	return nil, nil
}
func (r *ram) Close() error { return nil }

// heldQueue finishes operations only when reaped.
type heldQueue struct {
	r   *ram
	ops []Op
}

func (q *heldQueue) Register([][]byte) error   { return nil }
func (q *heldQueue) WatchFD(int, uint64) error { return nil }
func (q *heldQueue) Submit(ops []Op) (int, error) {
	q.ops = append(q.ops, ops...)
	return len(ops), nil
}
func (q *heldQueue) Reap(ctx context.Context, min int, dst []Completion) (int, error) {
	n := 0
	for n < len(dst) && len(q.ops) > 0 {
		op := q.ops[0]
		q.ops = append(q.ops[:0], q.ops[1:]...)
		for _, p := range op.Vec {
			if op.Kind == Write {
				q.r.WriteAt(ctx, p, op.Off, 0)
			} else {
				q.r.ReadAt(ctx, p, op.Off)
			}
		}
		dst[n] = Completion{Tag: op.Tag}
		n++
	}
	return n, nil
}
func (q *heldQueue) Cancel(uint64) {}
func (q *heldQueue) Close() error  { return nil }

type heldRAM struct {
	*ram
	q *heldQueue
}

func (h heldRAM) NewQueue(int) (Queue, error) { return h.q, nil }

// An unaligned write is refused (busy) while a queued write to the same block is
// in flight, and neither loses the other's bytes.
func TestQueueUnalignedWaitsForQueued(t *testing.T) {
	r := &ram{data: make([]byte, 4096)}
	d := New(heldRAM{r, &heldQueue{r: r}}, "held")
	q, err := d.NewQueue(4)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 512)
	for i := range block {
		block[i] = 'a'
	}
	ops := []Op{
		{Kind: Write, Off: 0, Len: 512, Vec: [][]byte{block}, Tag: 1},
		{Kind: Write, Off: 10, Len: 3, Vec: [][]byte{[]byte("bbb")}, Tag: 2},
	}
	n, err := q.Submit(ops)
	if n != 1 || err != nil {
		t.Fatalf("Submit took %d, %v; want 1 (busy)", n, err)
	}
	got := make([]Completion, 4)
	if n, err = q.Reap(t.Context(), 1, got); n != 1 || err != nil || got[0].Tag != 1 || got[0].Err != nil {
		t.Fatalf("Reap: %d %v %v", n, err, got[0])
	}
	if n, err = q.Submit(ops[1:]); n != 1 || err != nil {
		t.Fatalf("second Submit took %d, %v", n, err)
	}
	if n, err = q.Reap(t.Context(), 1, got); n != 1 || err != nil || got[0].Tag != 2 || got[0].Err != nil {
		t.Fatalf("second Reap: %d %v %v", n, err, got[0])
	}
	if want := "aaaaaaaaaabbbaa"; string(r.data[:15]) != want {
		t.Fatalf("disk holds %q, want %q", r.data[:15], want)
	}
}

// A queue allocates nothing per operation.
func TestQueueAllocations(t *testing.T) {
	r := &ram{data: make([]byte, 4096)}
	for name, d := range map[string]*Disk{
		"checked": New(heldRAM{r, &heldQueue{r: r, ops: make([]Op, 0, 8)}}, "held"),
		"pool":    New(r, "pool"),
	} {
		t.Run(name, func(t *testing.T) {
			q, err := d.NewQueue(4)
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			ops := []Op{{Kind: Write, Len: 512, Vec: [][]byte{make([]byte, 512)}}, {Kind: Read, Off: 512, Len: 512, Vec: [][]byte{make([]byte, 512)}}}
			got := make([]Completion, 4)
			allocs := testing.AllocsPerRun(1000, func() {
				if n, err := q.Submit(ops); n != len(ops) || err != nil {
					t.Fatal(n, err)
				}
				for n := 0; n < len(ops); {
					m, err := q.Reap(context.Background(), 1, got)
					if err != nil || m == 0 {
						t.Fatal(m, err)
					}
					n += m
				}
			})
			if allocs != 0 {
				t.Errorf("%.1f allocations per run, want 0", allocs)
			}
		})
	}
}

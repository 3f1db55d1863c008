package nbd

import (
	"cmp"
	"slices"

	wire "github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
)

const (
	chunkSize = 1 << 20
	// recordCost is what a record without data counts against the limit.
	recordCost = 128
)

// record is a completed change of the export, or a part of a long one.
type record struct {
	seq  uint64 // order of starting
	ack  uint64 // order of completion; 0 while the data is being copied
	cmd  wire.Command
	flag wire.CommandFlags
	off  int64
	n    int64
	data []byte
	in   *chunk
	next *record // of the same request
}

// chunk is a piece of memory that records keep their data in.
type chunk struct {
	buf  []byte
	used int
	refs int
}

// replayLog holds the changes since the last flush. Changes complete in two
// steps, so that their data is copied without a lock: reserve, then ack.
//
// If there are changes that it does not hold, gap is the order number of the
// last of them; a flush that covers it closes the gap.
type replayLog struct {
	limit, size int64
	on          bool
	starts      uint64
	acks        uint64
	gap         uint64
	records     []*record
	cur         *chunk
	chunks      []*chunk // free
	spare       []*record
}

func (l *replayLog) init(limit int64) { l.limit, l.on = limit, limit > 0 }

// begin numbers a change that starts. A change that starts after another has
// completed has a higher number.
func (l *replayLog) begin() uint64 {
	l.starts++
	return l.starts
}

// reserve makes room for a change that the server acknowledged. nil means that
// it is not kept; ack takes that too.
func (l *replayLog) reserve(seq uint64, r *client.Request) *record {
	if !l.on || r.File != nil {
		return nil
	}
	data := int64(0)
	if r.Command == wire.CmdWrite {
		data = r.Length
	}
	if l.size+data+recordCost > l.limit {
		l.overflow()
		return nil
	}
	var first, last *record
	for off, left := r.Offset, r.Length; left > 0; {
		e := l.newRecord(seq, r, off, left)
		if first == nil {
			first = e
		} else {
			last.next = e
		}
		last = e
		off, left = off+e.n, left-e.n
	}
	return first
}

func (l *replayLog) newRecord(seq uint64, r *client.Request, off, n int64) *record {
	e := l.takeRecord()
	*e = record{seq: seq, cmd: r.Command, flag: r.Flags & (wire.CmdFlagNoHole | wire.CmdFlagFUA), off: off, n: n}
	l.size += recordCost
	if r.Command == wire.CmdWrite {
		c := l.room()
		e.n = min(n, int64(chunkSize-c.used))
		e.data, e.in = c.buf[c.used:c.used+int(e.n)], c
		c.used += int(e.n)
		c.refs++
		l.size += e.n
	}
	l.records = append(l.records, e)
	return e
}

// takeRecord returns an unused record. They are made by the slab, so that the
// log costs no allocation per write even before the first flush.
func (l *replayLog) takeRecord() *record {
	if len(l.spare) == 0 {
		slab := make([]record, 256)
		for i := range slab {
			l.spare = append(l.spare, &slab[i])
		}
	}
	k := len(l.spare) - 1
	e := l.spare[k]
	l.spare = l.spare[:k]
	return e
}

// room returns a chunk that is not full.
func (l *replayLog) room() *chunk {
	if l.cur != nil && l.cur.used < chunkSize {
		return l.cur
	}
	if l.cur != nil && l.cur.refs == 0 {
		l.cur.used = 0
		return l.cur
	}
	if k := len(l.chunks); k > 0 {
		l.cur, l.chunks = l.chunks[k-1], l.chunks[:k-1]
	} else {
		l.cur = &chunk{buf: make([]byte, chunkSize)}
	}
	return l.cur
}

// fill copies the data of a request into its records.
func (e *record) fill(vec [][]byte) {
	if e == nil || e.data == nil {
		return
	}
	room := e.data
	for _, p := range vec {
		for len(p) > 0 {
			if len(room) == 0 {
				e = e.next
				room = e.data
			}
			n := copy(room, p)
			room, p = room[n:], p[n:]
		}
	}
}

// ack makes a completed change part of what a flush that starts from now on
// covers. durable tells that it needs none.
func (l *replayLog) ack(e *record, durable bool) {
	l.acks++
	if e == nil && !durable {
		l.gap = l.acks
	}
	for ; e != nil; e = e.next {
		e.ack = l.acks
	}
}

// overflow gives up keeping changes until the next flush.
func (l *replayLog) overflow() {
	l.on = false
	l.gap = max(l.gap, l.acks)
	l.drop(l.acks)
}

// disable keeps nothing any more.
func (l *replayLog) disable() {
	l.limit = 0
	l.overflow()
	l.cur, l.chunks, l.spare = nil, nil, nil
}

// flushing is called before a flush is sent; the result is for flushed.
func (l *replayLog) flushing() uint64 {
	l.on = l.limit > 0
	return l.acks
}

// flushed drops what a successful flush made durable.
func (l *replayLog) flushed(mark uint64) {
	if l.gap <= mark {
		l.gap = 0
	}
	l.drop(mark)
}

// drop forgets the records with an order number up to mark.
func (l *replayLog) drop(mark uint64) {
	l.records = slices.DeleteFunc(l.records, func(e *record) bool {
		if e.ack == 0 || e.ack > mark {
			return false
		}
		l.size -= recordCost + int64(len(e.data))
		if c := e.in; c != nil {
			if c.refs--; c.refs == 0 {
				c.used = 0
				if c != l.cur {
					l.chunks = append(l.chunks, c)
				}
			}
		}
		*e = record{}
		l.spare = append(l.spare, e)
		return true
	})
}

// complete reports whether the log holds all changes since the last flush.
func (l *replayLog) complete() bool { return l.gap == 0 }

// empty reports whether no change since the last flush is held.
func (l *replayLog) empty() bool { return len(l.records) == 0 }

// ordered returns the records in the order in which they were started.
func (l *replayLog) ordered() []*record {
	list := slices.Clone(l.records)
	slices.SortStableFunc(list, func(a, b *record) int { return cmp.Compare(a.seq, b.seq) })
	return list
}

package server

import (
	"io"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// pendingMax bounds the data that waits while another goroutine sends. Final
// short replies may come on top: one for each task that the connection may have.
const pendingMax = 64 << 10

// output is the sending side of a connection. Whoever has something to send
// sends; replies of others that come up meanwhile are left in pending and leave
// together.
//
// A task whose reply was left there keeps its slot until the reply has left. So a
// client that sends and never reads has as many replies waiting as it may have
// tasks. (When slots were given back by tasks that had sent nothing, a client that
// sent nothing but FLUSH made a server grow to 1.6 GiB in 20 s.)
type output struct {
	t        transport
	poll     *poller
	freeSlot func() // the connection's

	// send is held while sending, and for as long as what was begun is not whole: a
	// reply of another request between two parts of one is taken for its data.
	send sync.Mutex

	mu      sync.Mutex
	pending []byte
	owed    int // slots of tasks whose last reply is in pending
	spare   []byte
	err     error // the connection is broken
}

// lock takes send. Who sends may be waiting for the client, or the disk.
func (o *output) lock() {
	if !o.send.TryLock() {
		o.poll.ensureWaiter()
		o.send.Lock()
	}
}

// flush sends the replies in the workspace, which are whole.
func (o *output) flush(ws *workspace) error {
	o.lock()
	err := o.write(ws.out)
	o.send.Unlock()
	ws.out = ws.out[:0]
	o.sweep()
	return err
}

// put sends short replies, each the last of its request, or leaves them to who is
// sending. The requests' slots are given back when they have left.
func (o *output) put(b []byte, requests int) {
	o.mu.Lock()
	o.pending = append(o.pending, b...)
	o.owed += requests
	o.mu.Unlock()
	o.sweep()
}

// putData sends one or more whole chunks, or a whole reply; data up to the limit
// may be left to who is sending. It reports whether the slot of a task whose last
// reply this is will be given back when it has left.
func (o *output) putData(b []byte, last bool) (left bool, err error) {
	if !o.send.TryLock() {
		if o.leave(b, last) {
			o.sweep()
			return last, nil
		}
		o.lock()
	}
	err = o.write(b)
	o.send.Unlock()
	o.sweep()
	return false, err
}

func (o *output) leave(b []byte, last bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending)+len(b) > pendingMax {
		return false
	}
	o.pending = append(o.pending, b...)
	if last {
		o.owed++
	}
	return true
}

// sweep sends what is pending unless somebody is sending, who then does.
func (o *output) sweep() {
	for o.hasPending() && o.send.TryLock() {
		_ = o.write(nil)
		o.send.Unlock()
	}
}

func (o *output) hasPending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending) > 0
}

// write sends what is pending and then b, which begins with a reply or chunk. The
// caller holds o.send.
func (o *output) write(b []byte) error {
	o.mu.Lock()
	err, first, owed := o.err, o.pending, o.owed
	o.pending, o.spare, o.owed = o.spare[:0], nil, 0
	o.mu.Unlock()
	if err == nil && len(first) > 0 {
		err = o.rest(first)
	}
	for range owed {
		o.freeSlot()
	}
	o.mu.Lock()
	if cap(first) <= 4096 {
		o.spare = first[:0]
	}
	o.mu.Unlock()
	if err != nil || len(b) == 0 {
		return err
	}
	return o.rest(b)
}

// rest sends b and nothing before it: it goes on with what was begun by write. The
// caller has held o.send since then.
func (o *output) rest(b []byte) error {
	err := o.t.send(b)
	if err != nil {
		o.fail(err)
	}
	return err
}

// fail breaks the connection: a reply can no longer be finished. The reader ends,
// too.
func (o *output) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.t.shut()
}

// file sends the replies in the workspace, the last of which is a header, and the
// data that follows it from a file. Where the file cannot give all (bad says why),
// zeros take the place of the rest if the client can be told so later, and else the
// connection is broken: err.
func (o *output) file(k *socket, ws *workspace, r disk.FileRange, tell bool) (bad, err error) {
	o.lock()
	defer o.sweep()
	defer o.send.Unlock()
	k.cork(true)
	defer k.cork(false)
	err = o.write(ws.out)
	ws.out = ws.out[:0]
	if err != nil {
		return nil, err
	}
	sent, bad := k.sendFile(r)
	switch {
	case sent == r.Len:
		return nil, nil
	case bad == nil:
		bad = io.ErrUnexpectedEOF
	}
	if !tell {
		o.fail(bad)
		return bad, bad
	}
	return bad, o.zeros(ws.out[:inlineMax], r.Len-sent)
}

// zeros sends n of them as the rest of a chunk.
func (o *output) zeros(room []byte, n int64) error {
	clear(room)
	for n > 0 {
		part := min(n, int64(len(room)))
		if err := o.rest(room[:part]); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

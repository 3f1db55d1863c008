package server

import (
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// pendingMax bounds the replies that wait while another goroutine sends.
const pendingMax = 64 << 10

// output is the sending side of a connection. Whoever has something to send
// sends; replies of others that come up meanwhile are left in pending and leave
// together.
type output struct {
	t    transport
	send sync.Mutex // held while sending

	mu      sync.Mutex
	pending []byte
	spare   []byte
	err     error // the connection is broken
}

// flush sends the replies in the workspace.
func (o *output) flush(ws *workspace) error {
	o.send.Lock()
	err := o.write(ws.out)
	o.send.Unlock()
	ws.out = ws.out[:0]
	o.sweep()
	return err
}

// put sends a short reply, or leaves it to who is sending.
func (o *output) put(b []byte) {
	o.mu.Lock()
	o.pending = append(o.pending, b...)
	o.mu.Unlock()
	o.sweep()
}

// putData sends a reply with data; data up to the limit may be left to who is sending.
func (o *output) putData(b []byte) error {
	if !o.send.TryLock() {
		if o.leave(b) {
			o.sweep()
			return nil
		}
		o.send.Lock()
	}
	err := o.write(b)
	o.send.Unlock()
	o.sweep()
	return err
}

func (o *output) leave(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending)+len(b) > pendingMax {
		return false
	}
	o.pending = append(o.pending, b...)
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

// write sends what is pending and then b. The caller holds o.send.
func (o *output) write(b []byte) error {
	o.mu.Lock()
	err, first := o.err, o.pending
	o.pending, o.spare = o.spare[:0], nil
	o.mu.Unlock()
	if err == nil && len(first) > 0 {
		err = o.t.send(first)
	}
	if err == nil && len(b) > 0 {
		err = o.t.send(b)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(first) <= 4096 {
		o.spare = first[:0]
	}
	if err != nil && o.err == nil {
		o.err = err
		o.t.shut() // the reader ends, too
	}
	return err
}

// fail breaks the connection: a reply can no longer be finished.
func (o *output) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	o.t.shut()
}

// file sends the replies in the workspace, the last of which is a header, and
// the data that follows it from a file. It tells how much data left; an error
// of the connection has broken it.
func (o *output) file(k *socket, ws *workspace, r disk.FileRange) (sent int64, err error) {
	o.send.Lock()
	defer o.sweep()
	defer o.send.Unlock()
	k.cork(true)
	err = o.write(ws.out)
	ws.out = ws.out[:0]
	if err == nil {
		sent, err = k.sendFile(r)
	}
	k.cork(false)
	return sent, err
}

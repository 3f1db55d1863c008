package client

import (
	"github.com/vmdisk/vmdisk/nbd"
)

// Completer is told the end of a request. Complete is called exactly once for
// each Start, from any goroutine, possibly before Start returns; it must not
// block. When it is called, nothing of the package touches the request or its
// memory any more.
type Completer interface {
	Complete(r *Request, err error)
}

// Request is one command for the server. The exported fields are the caller's,
// who must not touch them (nor the memory they name) between Start and the
// completion. A Request may be used again and again.
type Request struct {
	Command nbd.Command
	Flags   nbd.CommandFlags
	// Offset and Length in bytes; both within the export. Length is the sum of
	// the lengths of Vec for a READ, and for a WRITE unless File is set.
	Offset, Length int64
	// Vec is filled by a READ and sent by a WRITE.
	Vec [][]byte
	// File, if set, is where a WRITE takes its payload from.
	File *FileSource
	// Context is the index in Export.Contexts that a BLOCK_STATUS asks for; to
	// Status its extents are appended, as many as the capacity allows.
	Context int
	Status  []nbd.Status
	// Owner is told the end.
	Owner Completer

	conn   *conn
	cookie uint64
	state  state
	// Of a read: what has arrived.
	covered spans
	// The first error that the server reported, and that of File.
	result, source error
	// status tells that the wanted context was answered.
	status bool
	// idle counts the chunks of errors and of block status, dropped the bytes of a read that nobody wants.
	idle    int
	dropped int64

	receiving bool  // the receiver uses the memory
	replied   bool  // the reply came before the request was sent whole
	cancelled error // not nil: complete with it as soon as the memory is free
	discard   bool  // stands in for a request that was cancelled
}

// FileSource is a range of a file.
type FileSource struct {
	FD  int
	Off int64
}

// state of a request on its connection, guarded by conn.mu.
type state uint8

const (
	idle    state = iota
	queued        // in conn.pending
	sending       // the sender uses the memory
	sent
)

// reset prepares for a new run.
func (r *Request) reset() {
	r.covered.reset()
	r.Status = r.Status[:0]
	r.result, r.source, r.cancelled = nil, nil, nil
	r.status, r.receiving, r.replied = false, false, false
	r.idle = 0
}

// outcome is the error that a request which was answered ends with.
func (r *Request) outcome() error {
	if r.source != nil {
		return r.source
	}
	return r.result
}

// changes reports whether the command changes the export.
func (r *Request) changes() bool {
	return r.Command == nbd.CmdWrite || r.Command == nbd.CmdWriteZeroes || r.Command == nbd.CmdTrim
}

func (r *Request) appendHeader(b []byte, m nbd.Mode) []byte {
	h := nbd.Request{Flags: r.Flags, Command: r.Command, Cookie: r.cookie, Offset: uint64(r.Offset), Length: uint64(r.Length)}
	if m == nbd.Extended && r.Command == nbd.CmdWrite {
		// Section "Extended request": a length that counts payload says so.
		h.Flags |= nbd.CmdFlagPayloadLen
	}
	return h.Append(b, m)
}

// fail remembers the server's first refusal.
func (r *Request) fail(e nbd.ErrorChunk, hasOffset bool) {
	if r.result != nil || r.discard {
		return
	}
	err := &Error{Command: r.Command, Errno: e.Errno, Message: e.Message, Offset: -1}
	if hasOffset {
		err.Offset = int64(e.Offset)
	}
	r.result = err
}

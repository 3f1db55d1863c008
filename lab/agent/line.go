package agent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// What comes from a guest is not trusted: maxLine bounds a message, and maxObjects
// what it can unfold to, since three bytes of JSON make a sample of 88 bytes.
const (
	maxLine    = 64 << 20
	maxObjects = 1 << 20
)

// The operations. Every request has an answer "done" with its ID; "beat" and
// "progress" come unasked.
const (
	opHello    = "hello"
	opPing     = "ping"
	opPrepare  = "prepare"
	opRun      = "run"
	opGo       = "go"
	opStop     = "stop"
	opPowerOff = "poweroff"
	opProgress = "progress"
	opBeat     = "beat"
	opDone     = "done"
)

// message is one line of the channel.
type message struct {
	ID   int             `json:"id,omitempty"`
	Op   string          `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
	Err  string          `json:"error,omitempty"`
}

// sent is a message to be written.
type sent struct {
	ID   int    `json:"id,omitempty"`
	Op   string `json:"op"`
	Body any    `json:"body,omitempty"`
	Err  string `json:"error,omitempty"`
}

// lines reads and writes messages. Any number of goroutines write, one reads.
type lines struct {
	in *bufio.Reader
	// patience, if not 0, is how long a write may take.
	patience time.Duration
	// onCut is told once that a message went out in part; it must not write.
	onCut func(error)

	mu  sync.Mutex
	out io.Writer
	cut error // why nothing more can be written
}

func newLines(rw io.ReadWriter) *lines {
	return &lines{in: bufio.NewReaderSize(rw, 64<<10), out: rw}
}

var (
	errLong = fmt.Errorf("a message is longer than %d MiB", maxLine>>20)
	errMany = fmt.Errorf("a message has more than %d parts", maxObjects)
)

// read returns the next message, or io.EOF at the end of the channel.
func (l *lines) read() (message, error) {
	var m message
	line, err := l.line()
	if err != nil {
		return m, err
	}
	if bytes.Count(line, []byte("{")) > maxObjects {
		return m, errMany
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("message of %d bytes: %w", len(line), err)
	}
	return m, nil
}

// line returns the next line; it is valid until the next call.
func (l *lines) line() ([]byte, error) {
	var line []byte
	for {
		part, err := l.in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, errLong
		}
		switch {
		case err == nil && line == nil:
			return part, nil // the usual case: no copy
		case err == nil:
			return append(line, part...), nil
		case errors.Is(err, bufio.ErrBufferFull):
			line = append(line, part...)
		case errors.Is(err, io.EOF) && len(line)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// write sends a message.
func (l *lines) write(m sent) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text) // ends with a newline
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		return err
	}
	if text.Len() > maxLine {
		return errLong
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut != nil {
		return l.cut
	}
	if d, ok := l.out.(interface{ SetWriteDeadline(time.Time) error }); ok && l.patience > 0 {
		if err := d.SetWriteDeadline(time.Now().Add(l.patience)); err != nil {
			return err
		}
	}
	n, err := l.out.Write(text.Bytes())
	if err == nil || n == 0 {
		return err // what was not begun can be followed by another message
	}
	return l.cutOff(n, text.Len(), err)
}

// broken is why nothing more can be written, nil as long as something can.
func (l *lines) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// cutOff ends a channel on which part of a message is out: the other side would take
// the next message for the rest of this one.
func (l *lines) cutOff(n, size int, err error) error {
	l.cut = fmt.Errorf("a message was cut off after %d of %d bytes, nothing that follows would be understood: %w", n, size, err)
	if l.onCut != nil {
		l.onCut(l.cut)
	}
	return l.cut
}

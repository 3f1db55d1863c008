package agent

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxLine bounds a message in both directions: what comes from a guest is not
// trusted, and a result of hours must fit.
const maxLine = 64 << 20

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

// lines reads and writes messages. Any number of goroutines write, one reads.
type lines struct {
	in *bufio.Reader

	mu  sync.Mutex
	out io.Writer
}

func newLines(rw io.ReadWriter) *lines {
	return &lines{in: bufio.NewReaderSize(rw, 64<<10), out: rw}
}

var errLong = fmt.Errorf("a message is longer than %d MiB", maxLine>>20)

// read returns the next message, or io.EOF at the end of the channel.
func (l *lines) read() (message, error) {
	var m message
	var line []byte
	for {
		part, err := l.in.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return m, errLong
		}
		switch {
		case err == nil && line == nil:
			line = part // the usual case: no copy
		case err == nil:
			line = append(line, part...)
		case errors.Is(err, bufio.ErrBufferFull):
			line = append(line, part...)
			continue
		case errors.Is(err, io.EOF) && len(line)+len(part) > 0:
			return m, io.ErrUnexpectedEOF
		default:
			return m, err
		}
		break
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("message of %d bytes: %w", len(line), err)
	}
	return m, nil
}

// write sends a message with body as JSON; nil is no body.
func (l *lines) write(m message, body any) error {
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		m.Body = text
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) >= maxLine {
		return errLong
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.out.Write(append(text, '\n'))
	return err
}

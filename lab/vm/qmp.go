package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Event is something QEMU told by itself: SHUTDOWN, GUEST_PANICKED,
// BLOCK_IO_ERROR, VSERPORT_CHANGE and others of its QMP reference.
type Event struct {
	Name string
	At   time.Time // QEMU's clock, the host's wall clock
	Data json.RawMessage
}

// maxMessage bounds a line of QMP; a full query-block is some KiB.
const maxMessage = 16 << 20

// writeTimeout is how long QEMU may not read its monitor.
const writeTimeout = 10 * time.Second

// message is anything that QEMU sends.
type message struct {
	QMP    json.RawMessage `json:"QMP"` // the greeting
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// monitor is a QMP connection. Its methods are safe for concurrent use.
type monitor struct {
	conn    net.Conn
	onEvent func(Event)
	done    chan struct{} // closed when nothing more is read
	writing sync.Mutex

	mu      sync.Mutex
	next    int
	waiting map[int]chan message
	err     error // why done
}

// newMonitor does the handshake. Events are given to onEvent from one goroutine,
// which ends with the connection.
func newMonitor(ctx context.Context, conn net.Conn, onEvent func(Event)) (*monitor, error) {
	m := &monitor{conn: conn, onEvent: onEvent, done: make(chan struct{}), waiting: map[int]chan message{}}
	go m.read()
	// The greeting needs no answer: QEMU takes this before and after it.
	if err := m.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() {
	_ = m.conn.Close()
	<-m.done
}

// execute runs a command; args and reply may be nil.
func (m *monitor) execute(ctx context.Context, command string, args, reply any) error {
	got, err := m.exchange(ctx, command, args)
	switch {
	case err != nil:
		return fmt.Errorf("QMP %s: %w", command, err)
	case got.Error != nil:
		return fmt.Errorf("QMP %s: %s", command, got.Error.Desc)
	case reply == nil:
		return nil
	}
	if err := json.Unmarshal(got.Return, reply); err != nil {
		return fmt.Errorf("QMP %s: its reply: %w", command, err)
	}
	return nil
}

func (m *monitor) exchange(ctx context.Context, command string, args any) (message, error) {
	answer := make(chan message, 1)
	id, err := m.send(ctx, command, args, answer)
	if err != nil {
		return message{}, err
	}
	select {
	case got := <-answer:
		return got, nil
	case <-m.done:
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiting, id)
	select {
	case got := <-answer: // came at the same time
		return got, nil
	default:
	}
	if ctx.Err() != nil {
		return message{}, context.Cause(ctx)
	}
	return message{}, m.err
}

func (m *monitor) send(ctx context.Context, command string, args any, answer chan message) (int, error) {
	id, err := m.expect(answer)
	if err != nil {
		return 0, err
	}
	request := map[string]any{"execute": command, "id": id}
	if args != nil {
		request["arguments"] = args
	}
	text, err := json.Marshal(request)
	if err == nil {
		err = m.write(ctx, append(text, '\n'))
	}
	if err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.waiting, id)
	}
	return id, err
}

// expect registers who waits for the answer to the next command.
func (m *monitor) expect(answer chan message) (id int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	m.next++
	m.waiting[m.next] = answer
	return m.next, nil
}

// write does not hold the lock that reading needs: QEMU may want its answers read
// before it reads on.
func (m *monitor) write(ctx context.Context, line []byte) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	_ = m.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		_ = m.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	_, err := m.conn.Write(line)
	if !stop() {
		<-hurried // else it might hurry the next command
	}
	if err == nil {
		return nil
	}
	// Part of the line may be out: nothing that follows would be understood.
	_ = m.conn.Close()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, unix.EPIPE) || errors.Is(err, net.ErrClosed):
		return errHungUp
	}
	return err
}

// read hands out what QEMU sends until the connection ends.
func (m *monitor) read() {
	defer close(m.done)
	in := bufio.NewScanner(m.conn)
	in.Buffer(nil, maxMessage)
	err := m.dispatchAll(in)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *monitor) dispatchAll(in *bufio.Scanner) error {
	for in.Scan() {
		var got message
		if err := json.Unmarshal(in.Bytes(), &got); err != nil {
			return fmt.Errorf("QEMU's monitor sent no JSON: %w", err)
		}
		m.dispatch(got)
	}
	err := in.Err()
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) {
		return errHungUp
	}
	return fmt.Errorf("QEMU's monitor: %w", err)
}

var errHungUp = errors.New("QEMU's monitor is closed")

func (m *monitor) dispatch(got message) {
	if got.Event != "" {
		at := time.Unix(got.Timestamp.Seconds, got.Timestamp.Microseconds*1000)
		m.onEvent(Event{Name: got.Event, At: at, Data: got.Data})
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if answer, ok := m.waiting[got.ID]; ok {
		delete(m.waiting, got.ID)
		answer <- got
	}
}

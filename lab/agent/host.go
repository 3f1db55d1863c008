package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/child"
	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// HostClient is a node without a guest: a process of this host.
type HostClient struct {
	child  *child.Process
	conn   *Conn
	log    *os.File
	once   sync.Once
	closed error
}

// maxSocket is the longest path of a unix socket, unix(7), less the zero.
const maxSocket = 107

// connectTime is what a client gets to start.
const connectTime = 30 * time.Second

// StartHost starts `vmdisk lab agent`, with vmdisk the path of the program, and
// waits until it has connected. Its socket, messages and temporary files lie in dir,
// which is the caller's to remove. It dies with this process.
func StartHost(ctx context.Context, vmdisk, dir, name string) (_ *HostClient, err error) {
	socket := filepath.Join(dir, "agent.sock")
	if len(socket) > maxSocket {
		return nil, fmt.Errorf("client %s: the path of its socket %s has %d bytes, %d are possible: use a shorter folder", name, socket, len(socket), maxSocket)
	}
	l, err := unixsock.Listen(socket, unixsock.Options{Mode: new(fs.FileMode(0o600))})
	if err != nil {
		return nil, fmt.Errorf("client %s: %w", name, err)
	}
	defer func() { _ = l.Close() }()
	h := new(HostClient)
	if h.log, err = os.Create(filepath.Join(dir, "agent.log")); err != nil {
		return nil, err
	}
	// Not CommandContext: the node is stopped in order, over its channel.
	cmd := exec.Command(vmdisk, "lab", "agent", "--socket", socket)
	cmd.Stdout, cmd.Stderr = h.log, h.log
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	if h.child, err = child.Start(cmd, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("client %s: %w", name, err), h.log.Close())
	}
	conn, err := h.accept(ctx, l)
	if err != nil {
		text, _ := os.ReadFile(h.log.Name())
		return nil, errors.Join(fmt.Errorf("client %s: %w: %s", name, err, lastLine(text)), h.Close())
	}
	h.conn = NewConn(conn)
	return h, nil
}

func (h *HostClient) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTime, fmt.Errorf("it did not connect within %v", connectTime))
	defer cancel()
	type accepted struct {
		conn net.Conn
		err  error
	}
	got := make(chan accepted, 1)
	go func() { // ends with the listener, which the caller closes
		c, err := l.Accept()
		got <- accepted{c, err}
	}()
	var why error
	select {
	case a := <-got:
		return a.conn, a.err
	case <-h.Exited():
		why = errors.New("it ended at once")
	case <-ctx.Done():
		why = context.Cause(ctx)
	}
	_ = l.Close()
	if a := <-got; a.conn != nil {
		_ = a.conn.Close()
	}
	return nil, why
}

// Conn is the channel to the client.
func (h *HostClient) Conn() *Conn { return h.conn }

// PID is the client's process.
func (h *HostClient) PID() int { return h.child.PID() }

// Exited is closed when the process has ended.
func (h *HostClient) Exited() <-chan struct{} { return h.child.Done() }

// Close ends the channel and the process. It may be called again.
func (h *HostClient) Close() error {
	h.once.Do(func() { h.closed = h.close() })
	return h.closed
}

func (h *HostClient) close() error {
	var err error
	if h.conn != nil {
		err = h.conn.Close()
	}
	select {
	case <-h.Exited(): // it ends when its channel does
	case <-time.After(time.Second):
	}
	err = errors.Join(err, h.child.KillGroup()) // its own children too
	<-h.Exited()
	return errors.Join(err, h.log.Close())
}

// ServeSocket serves the lab at a unix socket: the client's end of StartHost.
func ServeSocket(ctx context.Context, path string, o Options) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("connect to the lab: %w; it makes the socket and starts this command itself", err)
	}
	return serveOn(ctx, c, o)
}

package guest

import (
	"io"
	"net"
	"sync"
)

// forwarder carries TCP connections on 127.0.0.1 to a unix socket. When either
// side of a connection ends, so does the other: a killed server is seen at once.
type forwarder struct {
	listener net.Listener
	socket   string

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
	wg     sync.WaitGroup
}

func newForwarder(socket string) (*forwarder, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &forwarder{listener: l, socket: socket, conns: map[net.Conn]bool{}}
	f.wg.Go(f.accept)
	return f, nil
}

func (f *forwarder) port() int { return f.listener.Addr().(*net.TCPAddr).Port }

func (f *forwarder) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *forwarder) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() { f.carry(c) })
	}
}

func (f *forwarder) carry(c net.Conn) {
	if !f.own(c) {
		return
	}
	defer f.drop(c)
	s, err := net.Dial("unix", f.socket)
	if err != nil || !f.own(s) {
		return
	}
	defer f.drop(s)
	var wg sync.WaitGroup
	pump := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = to.Close(), from.Close()
	}
	wg.Go(func() { pump(s, c) })
	pump(c, s)
	wg.Wait()
}

// own registers a connection to be closed with the forwarder; false: too late.
func (f *forwarder) own(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return false
	}
	f.conns[c] = true
	return true
}

func (f *forwarder) drop(c net.Conn) {
	_ = c.Close()
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
}

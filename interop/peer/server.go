package peer

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// startTimeout bounds how long a server may take until it greets.
const startTimeout = 30 * time.Second

// Server is an NBD server in the background, listening on a unix socket.
type Server struct {
	*Proc
	Socket string
	argv   []string
	env    []string
}

// URI of the default export.
func (s *Server) URI() string { return UnixURI(s.Socket, "") }

// UnixURI is the NBD URI of an export behind a unix socket.
func UnixURI(socket, export string) string {
	return "nbd+unix:///" + export + "?socket=" + socket
}

// Nbdkit starts nbdkit with a plugin, filters and their parameters:
// Nbdkit(dir, "file", "/disk.img") or Nbdkit(dir, "--filter=delay", "memory", "1G", "rdelay=1ms").
// Its socket is made in dir.
func Nbdkit(dir string, args ...string) (*Server, error) {
	return startServer("nbdkit", dir, func(socket string) []string {
		return append([]string{"nbdkit", "-f", "-U", socket}, args...)
	})
}

// QemuNBD starts qemu-nbd for up to 8 clients: QemuNBD(dir, "-f", "raw", "/disk.img").
func QemuNBD(dir string, args ...string) (*Server, error) {
	return startServer("qemu-nbd", dir, func(socket string) []string {
		return append([]string{"qemu-nbd", "-t", "-e", "8", "-k", socket}, args...)
	})
}

// Vmdisk starts `vmdisk serve` of the given binary: Vmdisk(bin, dir, "/disk.img").
func Vmdisk(bin, dir string, args ...string) (*Server, error) {
	return startServer("vmdisk", dir, func(socket string) []string {
		return append([]string{bin, "serve", "--nbd", "unix:" + socket}, args...)
	})
}

// startServer starts a server on a new socket in dir and waits for its greeting.
func startServer(name, dir string, argv func(socket string) []string, env ...string) (*Server, error) {
	// Not in dir itself: a socket's path may have 107 bytes at most.
	sub, err := os.MkdirTemp(dir, "s")
	if err != nil {
		return nil, fmt.Errorf("socket of %s: %w", name, err)
	}
	s := &Server{Socket: filepath.Join(sub, "nbd"), env: env}
	s.argv = argv(s.Socket)
	s.Proc = &Proc{Name: name}
	return s, s.Restart()
}

// Restart starts the server again, at the same place with the same arguments,
// after it was stopped or killed.
func (s *Server) Restart() error {
	name := s.Proc.Name
	// What a killed server leaves is removed: not every peer does it by itself.
	if err := os.Remove(s.Socket); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	p, err := Start(name, s.argv, s.env)
	if err != nil {
		return err
	}
	s.Proc = p
	if err := waitGreeting(p, "unix", s.Socket); err != nil {
		p.Kill()
		return err
	}
	return nil
}

// waitGreeting waits until the server at addr sends the first bytes of NBD.
func waitGreeting(p *Proc, network, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := Greeted(ctx, network, addr)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended at start: %w: %s", p.Name, p.child.Err(), p.Stderr())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer on %s after %v: %w: %s", p.Name, addr, startTimeout, err, p.Stderr())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Greeted connects to addr and fails unless an NBD server greets there.
func Greeted(ctx context.Context, network, addr string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(startTimeout))
	var magic [8]byte
	if _, err := io.ReadFull(c, magic[:]); err != nil {
		return err
	}
	if string(magic[:]) != "NBDMAGIC" {
		return fmt.Errorf("greeting is %q", magic)
	}
	return nil
}

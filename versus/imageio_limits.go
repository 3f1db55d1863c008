package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// spread makes an image with percent of data in pieces of up to 1 MiB, evenly.
func spread(path string, size int64, percent int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	const unit = 4 << 20
	block := make([]byte, unit*int64(percent)/100&^4095)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	for off := int64(0); off < size && err == nil; off += unit {
		_, err = f.WriteAt(block, off)
	}
	return errors.Join(err, f.Truncate(size), f.Close())
}

// allocated is the space that a file takes, in bytes.
func allocated(path string) (int64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Blocks * 512, err
}

// throttled mounts an XFS whose device takes rate bytes of writes per second.
func (e *Env) throttled(ctx context.Context, rate int64) (string, error) {
	const limit = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device"
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("%w: needs root for a loop device", errSkip)
	}
	if _, err := os.Stat(limit); err != nil {
		return "", fmt.Errorf("%w: needs the kernel's blkio controller: %w", errSkip, err)
	}
	mnt, err := e.mountXFS(ctx)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(mnt, &st); err != nil {
		return "", err
	}
	set := func(rate int64) error {
		return os.WriteFile(limit, fmt.Appendf(nil, "%d:%d %d", unix.Major(st.Dev), unix.Minor(st.Dev), rate), 0)
	}
	e.Defer(func() error { return set(0) })
	return mnt, set(rate)
}

// streamFiles is streamTLS from a file to a new one: the least that a transfer can be.
func streamFiles(ctx context.Context, certs, from, to string, size int64) (s Sample, err error) {
	src, err := os.Open(from)
	if err != nil {
		return s, err
	}
	defer func() { _ = src.Close() }()
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return s, err
	}
	dst, err := os.Create(to)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return streamTLS(ctx, certs, size, src, dst)
}

// streamTLS sends size bytes over one TLS connection on the loopback interface: of
// src, if it is not nil, and to dst.
func streamTLS(ctx context.Context, certs string, size int64, src io.Reader, dst io.Writer) (s Sample, err error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(certs, "server-cert.pem"), filepath.Join(certs, "server-key.pem"))
	if err != nil {
		return s, err
	}
	ca, err := os.ReadFile(filepath.Join(certs, "ca-cert.pem"))
	if err != nil {
		return s, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	received := make(chan error, 1)
	go func() { received <- drain(l, size, dst) }()
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	start := time.Now()
	c, err := dialer.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return s, err
	}
	defer func() { _ = c.Close() }()
	buf := make([]byte, 512<<10)
	for left := size; left > 0; {
		if src != nil {
			if _, err := io.ReadFull(src, buf[:min(left, int64(len(buf)))]); err != nil {
				return s, err
			}
		}
		n, err := c.Write(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return s, err
		}
		left -= int64(n)
	}
	err = <-received
	return Sample{Value: time.Since(start).Seconds()}, err
}

func drain(l net.Listener, size int64, dst io.Writer) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	buf := make([]byte, 512<<10)
	for size > 0 {
		n, err := c.Read(buf)
		if size -= int64(n); err != nil && size > 0 {
			return err
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// daemonMemory: buffers are for what is under way.
func daemonMemory() Case {
	const clients, connections = 10, 4
	return Case{
		Name: "imageio/memory", Unit: Bytes, Short: true, Goals: []Goal{atMost((32 + clients*connections) << 20)},
		What: "the daemon's memory at its peak in ten concurrent uploads over HTTPS of four connections each: 32 MiB and 1 MiB a connection",
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			if err := e.fast(); err != nil {
				return nil, err
			}
			if err := spread(e.Path("image"), 1<<30, 19); err != nil {
				return nil, err
			}
			return []Contender{{Name: oursName + " daemon", Run: func(ctx context.Context, _ int) (Sample, error) {
				d, err := e.Daemon(true)
				if err != nil {
					return Sample{}, err
				}
				defer d.Kill()
				s, err := transfer{d: d, e: e}.together(ctx, clients, false)
				if err != nil {
					return s, err
				}
				_, s.RSS, err = d.Memory()
				s.Value = float64(s.RSS)
				return s, err
			}}}, nil
		},
	}
}

// millionExtents: a map is streamed.
func millionExtents() Case {
	return Case{
		Name: "imageio/million-extents", Unit: Bytes, Goals: []Goal{atMost(64 << 20)},
		What: "the daemon's memory at its peak while it sends the map of a file with a million extents",
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			if err := e.fast(); err != nil {
				return nil, err
			}
			image := e.Path("image")
			if err := stripedFile(image, 1e6); err != nil {
				return nil, err
			}
			return []Contender{{Name: oursName + " daemon", Run: func(ctx context.Context, _ int) (Sample, error) {
				d, err := e.Daemon(false)
				if err != nil {
					return Sample{}, err
				}
				defer d.Kill()
				if err := readMap(ctx, d, image, 1e6); err != nil {
					return Sample{}, err
				}
				_, peak, err := d.Memory()
				return Sample{Value: float64(peak), RSS: peak}, err
			}}}, nil
		},
	}
}

// stripedFile makes a file of n extents of 4 KiB, every other one a hole.
func stripedFile(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 4096)
	block[0] = 1
	for i := int64(0); i < n && err == nil; i += 2 {
		_, err = f.WriteAt(block, i*4096)
	}
	return errors.Join(err, f.Truncate(n*4096), f.Close())
}

// readMap fetches a map and counts its extents.
func readMap(ctx context.Context, d *peer.Daemon, image string, want int) error {
	id, err := d.Ticket(ctx, image, "--ops", "read")
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Image(id)+"/extents", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	n := 0
	buf := make([]byte, 64<<10)
	for err == nil {
		var got int
		got, err = resp.Body.Read(buf)
		for _, c := range buf[:got] {
			if c == '{' {
				n++
			}
		}
	}
	if err != io.EOF || n != want {
		return fmt.Errorf("a map of %d extents instead of %d: %w", n, want, err)
	}
	return nil
}

// daemonShutdown: the daemon ends with its last request.
func daemonShutdown() Case {
	return Case{
		Name: "imageio/shutdown", Unit: Seconds, Short: true, Goals: []Goal{atMost(0.1)},
		What: "from the answer to the last request until the process, told to end before, is gone",
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			if err := sparse(e.Path("target"), 1<<20); err != nil {
				return nil, err
			}
			return []Contender{{Name: oursName + " daemon", Run: func(ctx context.Context, _ int) (Sample, error) {
				d, err := e.Daemon(false)
				if err != nil {
					return Sample{}, err
				}
				defer d.Kill()
				took, err := endWith(ctx, d, e.Path("target"))
				return Sample{Value: took.Seconds()}, err
			}}}, nil
		},
	}
}

// endWith tells the daemon to end in the middle of a request, which it lets finish.
func endWith(ctx context.Context, d *peer.Daemon, target string) (time.Duration, error) {
	id, err := d.Ticket(ctx, target)
	if err != nil {
		return 0, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", d.LocalSocket())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "PUT /images/%s?flush=n HTTP/1.1\r\ncontent-length: 8\r\nexpect: 100-continue\r\n\r\n", id); err != nil {
		return 0, err
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		return 0, fmt.Errorf("the daemon answers %q: %w", line, err)
	}
	if err := d.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	for refused := false; !refused; time.Sleep(time.Millisecond) { // until it no longer accepts
		nc, err := net.Dial("unix", d.LocalSocket())
		if refused = err != nil; !refused {
			_ = nc.Close()
		}
	}
	if _, err := io.WriteString(c, "12345678"); err != nil {
		return 0, err
	}
	if _, err := r.ReadString('\n'); err != nil { // the rest of the interim answer
		return 0, err
	}
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		return 0, fmt.Errorf("the daemon answers %q: %w", line, err)
	}
	start := time.Now()
	err = d.Wait()
	return time.Since(start), err
}

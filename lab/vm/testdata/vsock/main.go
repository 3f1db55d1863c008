// The first program of a guest that puts the agent's channel over a real vsock, the
// loopback of its kernel, and says on the console what came of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/lab/agent"
)

const loopback = unix.VMADDR_CID_LOCAL

func main() {
	if err := all(); err != nil {
		fmt.Println("vmdisk: vsock:", strings.ReplaceAll(err.Error(), "\n", "; "))
	} else {
		fmt.Println("vmdisk: vsock works")
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func all() error {
	if err := modules(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, check := range []struct {
		name string
		do   func(context.Context) error
	}{{"session", session}, {"bytes", bytesBothWays}, {"endings", endings}, {"nobody", nobody}} {
		if err := check.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
	}
	return nil
}

func modules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_ = unix.FinitModule(int(f.Fd()), "", 0) // drivers of hardware that is not there fail
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// pair is both ends of a connection.
func pair(ctx context.Context) (guest, host *agent.VsockConn, err error) {
	l, err := agent.ListenVsock()
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if guest, err = agent.DialVsock(ctx, loopback, l.Port); err != nil {
		return nil, nil, err
	}
	host, err = l.Accept()
	if err == nil && host.CID != loopback {
		err = fmt.Errorf("the other side has CID %d", host.CID)
	}
	return guest, host, err
}

// session: an agent serves the lab: hello, a clock, a request and an answer of 1 MiB
// each, and the end.
func session(ctx context.Context) error {
	guest, host, err := pair(ctx)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- agent.Serve(ctx, guest, agent.Options{Version: "over vsock"}) }()
	c := agent.NewConn(host)
	h, err := c.Hello(ctx)
	if err != nil || h.Version != "over vsock" || h.PID != 1 {
		return fmt.Errorf("hello %+v: %w", h, err)
	}
	if _, err := c.Clock(ctx); err != nil {
		return err
	}
	// What is not understood comes back in the error, of which the lab keeps 4 KiB.
	long := strings.Repeat("x", 1<<20)
	if _, err := c.Prepare(ctx, agent.Prepare{URL: "no-such-scheme:" + long}); err == nil || !strings.Contains(err.Error(), "no-such-scheme") || len(err.Error()) < 4<<10 {
		return fmt.Errorf("a request of 1 MiB: %w", err)
	}
	if _, err := c.Clock(ctx); err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	if err := <-served; err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the agent ended with: %w", err)
	}
	return guest.Close()
}

// bytesBothWays sends 4 MiB each way at the same time: more than any buffer.
func bytesBothWays(ctx context.Context) error {
	guest, host, err := pair(ctx)
	if err != nil {
		return err
	}
	const size = 4 << 20
	results := make(chan error, 4)
	for i, c := range []*agent.VsockConn{guest, host} {
		go func() { results <- sends(c, size, byte(i)) }()
		go func() { results <- receives(c, size, byte(1-i)) }()
	}
	for range 4 {
		err = errors.Join(err, <-results)
	}
	return errors.Join(err, guest.Close(), host.Close())
}

func sends(w io.Writer, size int, seed byte) error {
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i) ^ byte(i>>8) ^ seed
	}
	for range size / len(block) {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

func receives(r io.Reader, size int, seed byte) error {
	all := make([]byte, size)
	if _, err := io.ReadFull(r, all); err != nil {
		return err
	}
	for i, b := range all {
		if b != byte(i)^byte(i>>8)^seed {
			return fmt.Errorf("byte %d is %d", i, b)
		}
	}
	return nil
}

// endings: closing and deadlines end what waits.
func endings(ctx context.Context) error {
	guest, host, err := pair(ctx)
	if err != nil {
		return err
	}
	if err := host.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("a read with a deadline: %w", err)
	}
	if err := host.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := host.Write(make([]byte, 4<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("a write that nobody reads: %w", err)
	}
	if err := ends(guest.Close, func() error { _, err := io.Copy(io.Discard, guest); return err }, os.ErrClosed); err != nil {
		return fmt.Errorf("a read whose own side closes: %w", err)
	}
	if err := host.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if n, err := host.Read(make([]byte, 1)); err == nil {
		return fmt.Errorf("%d bytes came from a side that was closed", n)
	}
	l, err := agent.ListenVsock()
	if err != nil {
		return err
	}
	if err := ends(l.Close, func() error { _, err := l.Accept(); return err }, os.ErrClosed); err != nil {
		return fmt.Errorf("accept on a listener that is closed: %w", err)
	}
	return host.Close()
}

// ends calls wait, and stop a moment later, and wants that error.
func ends(stop, wait func() error, want error) error {
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	time.Sleep(50 * time.Millisecond)
	if err := stop(); err != nil {
		return err
	}
	select {
	case err := <-ended:
		if !errors.Is(err, want) {
			return fmt.Errorf("it ended with %w", err)
		}
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("it waits on")
	}
}

// nobody: a port at which nobody listens is an error, not a wait.
func nobody(ctx context.Context) error {
	for _, cid := range []uint32{loopback, agent.VsockHost} {
		c, err := agent.DialVsock(ctx, cid, 7)
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("CID %d took a connection", cid)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

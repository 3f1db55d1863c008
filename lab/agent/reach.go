package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// How a guest is told which port of the host to connect to: a word of its kernel's
// command line, or, where the image brings its own, a file of QEMU's fw_cfg device.
const (
	VsockWord = "vmdisk.vsock="
	VsockFile = "opt/com.github.vmdisk/vsock"
)

// guestFiles are where a guest's kernel tells what QEMU gave it.
type guestFiles struct{ proc, sys string }

var theGuest = guestFiles{proc: "/proc", sys: "/sys"}

// vsockPort is the port of the host that waits for this guest, 0 if none does.
func (g guestFiles) vsockPort() (uint32, error) {
	line, err := os.ReadFile(filepath.Join(g.proc, "cmdline"))
	if err != nil {
		return 0, err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if port, ok := strings.CutPrefix(word, VsockWord); ok {
			return parsePort(port)
		}
	}
	file := filepath.Join(g.sys, "firmware/qemu_fw_cfg/by_name", VsockFile, "raw")
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parsePort(strings.TrimSpace(string(text)))
}

func parsePort(text string) (uint32, error) {
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil || port == 0 {
		return 0, fmt.Errorf("vsock port %q: want 1 to 4294967295", text)
	}
	return uint32(port), nil
}

// ServeGuest serves the lab from within one of its guests: by vsock if the guest was
// told a port and reaches it, else by the virtio-serial port.
func ServeGuest(ctx context.Context, o Options) error {
	port, err := theGuest.vsockPort()
	if err == nil && port == 0 {
		return ServePort(ctx, Port, o)
	}
	var c *VsockConn
	if err == nil {
		c, err = reach(ctx, port)
	}
	if err != nil {
		// The lab sees by which way it is reached; this is for who looks why.
		fmt.Fprintln(os.Stderr, "vmdisk agent: not by vsock:", err)
		return ServePort(ctx, Port, o)
	}
	return serveOn(ctx, c, o)
}

// ServeVsock serves the lab at a vsock port of this guest's host.
func ServeVsock(ctx context.Context, port uint32, o Options) error {
	c, err := reach(ctx, port)
	if err != nil {
		return fmt.Errorf("connect to the lab: %w", err)
	}
	return serveOn(ctx, c, o)
}

// vsockWait is how long a guest tries to connect: its driver may need a moment.
const vsockWait = 3 * time.Second

func reach(ctx context.Context, port uint32) (*VsockConn, error) {
	begun := time.Now()
	for {
		c, err := DialVsock(ctx, VsockHost, port)
		if err == nil || time.Since(begun) > vsockWait {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serveOn serves the lab at a channel, which it closes.
func serveOn(ctx context.Context, c io.ReadWriteCloser, o Options) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	return Serve(ctx, c, o)
}

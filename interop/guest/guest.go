package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/interop/guest/wire"
	"github.com/vmdisk/vmdisk/interop/peer"
)

// bootTimeout is generous: an emulated boot takes 3 s on a quiet machine.
const bootTimeout = 3 * time.Minute

// callTimeout is how long the agent may be silent during an operation.
const callTimeout = 3 * time.Minute

// Guest is a running guest. Its methods are called one at a time.
type Guest struct {
	proc    *peer.Proc
	dir     string
	conn    net.Conn
	in      *bufio.Scanner
	out     *json.Encoder
	request int
	forward []*forwarder
}

// Boot starts a guest and waits for its agent. ctx bounds the guest's life:
// every call fails once it ends.
func (k *Kit) Boot(ctx context.Context) (*Guest, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	g := &Guest{dir: dir}
	if err := g.boot(ctx, k); err != nil {
		console, _ := os.ReadFile(filepath.Join(dir, "console"))
		g.Close()
		return nil, fmt.Errorf("boot the guest: %w\nconsole: %s", err, lastLines(string(console), 15))
	}
	return g, nil
}

func (g *Guest) boot(ctx context.Context, k *Kit) error {
	agent := filepath.Join(g.dir, "agent")
	l, err := net.Listen("unix", agent)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	g.proc, err = peer.Start("qemu-system-x86_64", k.argv(g.dir, agent), nil)
	if err != nil {
		return err
	}
	_ = l.(*net.UnixListener).SetDeadline(time.Now().Add(bootTimeout))
	stop := context.AfterFunc(ctx, g.proc.Kill)
	defer stop()
	if g.conn, err = l.Accept(); err != nil {
		return fmt.Errorf("%w: %s", err, g.proc.Stderr())
	}
	g.in, g.out = bufio.NewScanner(g.conn), json.NewEncoder(g.conn)
	g.in.Buffer(nil, 1<<20)
	_ = g.conn.SetDeadline(time.Now().Add(bootTimeout))
	_, err = g.reply()
	return err
}

func (k *Kit) argv(dir, agent string) []string {
	cmdline := "console=ttyS0 quiet panic=-1 tsc=reliable"
	if khz := hostKHz(); khz > 0 {
		// Without it a loaded machine calibrates the guest's clock wrong.
		cmdline += fmt.Sprintf(" tsc_early_khz=%d", khz)
	}
	return []string{
		"qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", "256",
		"-kernel", k.kernel, "-initrd", k.initrd, "-append", cmdline,
		"-serial", "file:" + filepath.Join(dir, "console"),
		"-device", "virtio-serial-pci,id=vs0", "-chardev", "socket,id=ag,path=" + agent,
		"-device", "virtserialport,bus=vs0.0,chardev=ag,name=" + wire.Port,
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=",
	}
}

func hostKHz() int {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "cpu MHz" {
			mhz, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(mhz * 1000)
		}
	}
	return 0
}

// Close ends the guest at once and removes what it left.
func (g *Guest) Close() {
	for _, f := range g.forward {
		f.close()
	}
	if g.conn != nil {
		_ = g.conn.Close()
	}
	if g.proc != nil {
		g.proc.Kill()
	}
	_ = os.RemoveAll(g.dir)
}

// Console is the end of what the guest's kernel printed.
func (g *Guest) Console() string {
	console, _ := os.ReadFile(filepath.Join(g.dir, "console"))
	return lastLines(string(console), 30)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (g *Guest) reply() (wire.Reply, error) {
	var r wire.Reply
	if !g.in.Scan() {
		err := g.in.Err()
		if err == nil {
			err = errors.New("the guest ended")
		}
		return r, fmt.Errorf("%w\nconsole: %s", err, g.Console())
	}
	return r, json.Unmarshal(g.in.Bytes(), &r)
}

// call does one operation in the guest; step is called for every step of it.
func (g *Guest) call(ctx context.Context, r wire.Request, step func(int)) (string, error) {
	g.request++
	r.ID = g.request
	_ = g.conn.SetDeadline(time.Now().Add(callTimeout))
	stop := context.AfterFunc(ctx, func() { _ = g.conn.Close() })
	defer stop()
	if err := g.out.Encode(r); err != nil {
		return "", fmt.Errorf("guest: %s: %w", r.Op, err)
	}
	for {
		got, err := g.reply()
		switch {
		case err != nil:
			return "", fmt.Errorf("guest: %s: %w", r.Op, err)
		case got.Step > 0:
			_ = g.conn.SetDeadline(time.Now().Add(callTimeout))
			if step != nil {
				step(got.Step)
			}
		case got.Err != "":
			return got.Text, fmt.Errorf("guest: %s: %s", r.Op, got.Err)
		default:
			return got.Text, nil
		}
	}
}

// Connect attaches an export of the server on a unix socket of the host to a
// device of the guest, "/dev/nbd0". The guest speaks TCP, which is carried to
// that socket. persist is how long requests wait for a server that went away,
// in whole seconds; the guest connects again by itself. 0: they fail.
func (g *Guest) Connect(ctx context.Context, device, socket, export string, persist time.Duration) error {
	addr, err := g.Forward(socket)
	if err != nil {
		return err
	}
	_, err = g.call(ctx, wire.Request{Op: "connect", Path: device, Addr: addr, Export: export, Secs: int(persist / time.Second)}, nil)
	return err
}

// Forward returns the address at which the guest reaches a unix socket of the
// host. It lasts as long as the guest.
func (g *Guest) Forward(socket string) (string, error) {
	f, err := newForwarder(socket)
	if err != nil {
		return "", err
	}
	g.forward = append(g.forward, f)
	return fmt.Sprintf("10.0.2.2:%d", f.port()), nil
}

// Disconnect detaches the device.
func (g *Guest) Disconnect(ctx context.Context, device string) error {
	_, err := g.call(ctx, wire.Request{Op: "disconnect", Path: device}, nil)
	return err
}

// Reconnects is how often the guest got a new connection for the device.
func (g *Guest) Reconnects(ctx context.Context, device string) (int, error) {
	text, err := g.call(ctx, wire.Request{Op: "reconnects", Path: device}, nil)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Run runs a program in the guest and returns its output.
func (g *Guest) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := g.call(ctx, wire.Request{Op: "run", Argv: argv}, nil)
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

// Mount mounts the ext4 file system of a device at dir. The guest's kernel then
// writes back only what is synced.
func (g *Guest) Mount(ctx context.Context, device, dir string) error {
	_, err := g.call(ctx, wire.Request{Op: "mount", Path: device, Target: dir}, nil)
	return err
}

// Unmount ends the mount at dir.
func (g *Guest) Unmount(ctx context.Context, dir string) error {
	_, err := g.call(ctx, wire.Request{Op: "umount", Target: dir}, nil)
	return err
}

// Files are numbered files of one size in a directory of the guest, whose
// content follows from Seed.
type Files struct {
	Dir          string
	First, Count int
	Size         int64
	Seed         uint64
}

func (f Files) request(op string) wire.Request {
	return wire.Request{Op: op, Path: f.Dir, First: f.First, Count: f.Count, Size: f.Size, Seed: f.Seed}
}

// Write writes the files, syncing each with its directory; synced is called with
// the number of files that are on stable storage as far as the guest was told.
func (g *Guest) Write(ctx context.Context, f Files, synced func(n int)) error {
	_, err := g.call(ctx, f.request("write"), synced)
	return err
}

// Verify returns a line for each file that is missing or has other content.
func (g *Guest) Verify(ctx context.Context, f Files) (string, error) {
	return g.call(ctx, f.request("verify"), nil)
}

// Exercise does ops random operations on one file of up to size bytes and checks
// every read.
func (g *Guest) Exercise(ctx context.Context, file string, ops int, size int64, seed uint64) error {
	_, err := g.call(ctx, wire.Request{Op: "fsx", Path: file, Count: ops, Size: size, Seed: seed}, nil)
	return err
}

// DropCaches makes the guest read again from the device.
func (g *Guest) DropCaches(ctx context.Context) error {
	_, err := g.call(ctx, wire.Request{Op: "drop"}, nil)
	return err
}

// KernelLog is the guest's kernel log.
func (g *Guest) KernelLog(ctx context.Context) (string, error) {
	return g.call(ctx, wire.Request{Op: "log"}, nil)
}

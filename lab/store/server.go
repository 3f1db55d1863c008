package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// serving is how a server is to serve.
type serving struct {
	socket     string
	cache, aio string
	filters    []string
	queues     int // 0: one
	iothread   bool
	pollMaxNS  int64 // of the iothread, -1: QEMU's default
	l2Cache    int64 // bytes, 0: QEMU's default
}

// export is the name of qemu-storage-daemon's, which wants one.
const export = "disk"

// serve starts the server of node i, if there is one, and describes the disk.
func (b *builder) serve(ctx context.Context, i int, m image) (Disk, error) {
	node := nodeName(i)
	filters, err := filtersFor(b.setup.Filters, node)
	if err != nil {
		return Disk{}, err
	}
	o := serving{socket: filepath.Join(b.own, node+".sock"), cache: b.setup.Cache, aio: b.setup.AIO, filters: filters,
		queues: b.setup.Queues, iothread: b.setup.IOThread, pollMaxNS: b.setup.PollMaxNS, l2Cache: b.setup.L2Cache}
	d := Disk{HostDevice: m.device}
	switch b.setup.Server {
	case "none":
		return b.direct(d, m, filters), nil
	case luks:
		if b.client == spec.ClientGuest {
			return b.direct(d, m, nil), nil
		}
		return b.nbd(ctx, d, node, qemuNBD(m, o), o.socket, "")
	case "vmdisk":
		return b.nbd(ctx, d, node, b.s.vmdisk(m, o), o.socket, "")
	case "qemu-nbd":
		return b.nbd(ctx, d, node, qemuNBD(m, o), o.socket, "")
	case "nbdkit":
		return b.nbd(ctx, d, node, nbdkit(m, o), o.socket, "")
	case "qsd-nbd":
		return b.nbd(ctx, d, node, storageDaemon(m, o, nbdExport(o)), o.socket, export)
	case "qsd":
		return b.vhostUser(ctx, d, node, storageDaemon(m, o, vhostUserExport(o)), o.socket)
	case "iscsi":
		return b.iscsi(ctx, d, node, m)
	}
	return Disk{}, fmt.Errorf("unknown server %q", b.setup.Server)
}

// direct is a disk without a server.
func (b *builder) direct(d Disk, m image, filters []string) Disk {
	d.Filters, d.Cache, d.AIO = m.limited(filters), b.setup.Cache, b.setup.AIO
	if m.url != "" {
		d.URL = m.url
		if u, err := diskurl.Parse(m.url); err == nil && !u.Local() {
			d.Cache, d.AIO = "", "" // they mean nothing there
		}
		return d
	}
	d.Source = m.source
	if m.source == (spec.Source{}) {
		d.Source = spec.Source{Driver: m.protocol(), Path: m.path, Format: m.format, Backing: m.backing, KeyFile: m.keyFile, Size: m.limit}
	}
	if m.path != "" && m.source == (spec.Source{}) && diskurl.Built(m.format) {
		d.URL = diskurl.File(m.path).As(m.format).String()
	}
	return d
}

func (b *builder) started(ctx context.Context, d *Disk, node string, c command, socket string) error {
	name := "server " + node
	p, err := b.c.start(name, c)
	if err != nil {
		return err
	}
	d.Processes = append(d.Processes, Process{Name: name, PID: p.PID()})
	return p.await(ctx, socket)
}

func (b *builder) nbd(ctx context.Context, d Disk, node string, c command, socket, name string) (Disk, error) {
	d.Source = spec.Source{Driver: "nbd", Socket: socket, Export: name, Format: raw}
	d.URL = nbdURL(socket, name)
	return d, b.started(ctx, &d, node, c, socket)
}

func (b *builder) vhostUser(ctx context.Context, d Disk, node string, c command, socket string) (Disk, error) {
	d.Source = spec.Source{Driver: "vhost-user", Socket: socket, Format: raw}
	if diskurl.Built(diskurl.SchemeVhostUser) {
		d.URL = diskurl.SchemeVhostUser + ":" + socket
	}
	return d, b.started(ctx, &d, node, c, socket)
}

func nbdURL(socket, name string) string {
	return diskurl.NBDAddr{Network: "unix", Host: socket, Export: name}.String()
}

// vmdisk serves with our own server.
func (s *Store) vmdisk(m image, o serving) command {
	url := m.url
	if url == "" {
		url = rawURL(m.path)
	}
	args := []string{"serve", url, "--nbd", "unix:" + o.socket}
	if u, err := diskurl.Parse(url); err == nil && u.Local() {
		args = append(args, "--cache", o.cache, "--aio", o.aio)
	}
	for _, f := range m.limited(o.filters) {
		args = append(args, "--filter", f)
	}
	return command{name: s.o.Vmdisk, args: args}
}

// qemuNBD takes any format.
func qemuNBD(m image, o serving) command {
	args := []string{"-t", "-e", "8", "-k", o.socket, "--cache=" + o.cache, "--aio=" + o.aio, "--discard=unmap"}
	if m.format == luks {
		return command{name: "qemu-nbd", args: append(args, "--object", secretObject(m.keyFile), "--image-opts", m.imageOptions())}
	}
	if m.limit > 0 {
		return command{name: "qemu-nbd", args: append(args, "--image-opts", m.below(""))}
	}
	if o.l2Cache > 0 && m.format == qcow2 {
		return command{name: "qemu-nbd", args: append(args, "--image-opts", fmt.Sprintf(
			"driver=qcow2,l2-cache-size=%d,file.driver=%s,file.filename=%s", o.l2Cache, m.protocol(), quote(m.path)))}
	}
	return command{name: "qemu-nbd", args: append(args, "-f", m.format, m.path)}
}

// nbdkit's file plugin uses the page cache; its filter fua makes writes durable, or
// ignores flushes.
func nbdkit(m image, o serving) command {
	mode := map[string]string{"writethrough": "force", "unsafe": "discard"}[o.cache]
	args := []string{"-f", "-U", o.socket}
	if mode != "" {
		args = append(args, "--filter=fua")
	}
	if m.limit > 0 {
		args = append(args, "--filter=offset")
	}
	args = append(args, "file", m.path)
	if mode != "" {
		args = append(args, "fuamode="+mode)
	}
	if m.limit > 0 {
		args = append(args, "offset=0", "range="+strconv.FormatInt(m.limit, 10))
	}
	return command{name: "nbdkit", args: args}
}

// blockdev is a node of qemu-storage-daemon.
type blockdev map[string]any

// storageDaemon serves one disk.
func storageDaemon(m image, o serving, exports []string) command {
	direct := o.cache == "none" || o.cache == "directsync"
	cache := map[string]bool{"direct": direct, "no-flush": o.cache == "unsafe"}
	nodes := []blockdev{{"driver": m.protocol(), "node-name": "file", "filename": m.path, "aio": o.aio, "cache": cache, "discard": "unmap"}}
	switch {
	case m.format == qcow2:
		top := blockdev{"driver": qcow2, "node-name": "disk", "file": "file", "cache": cache, "discard": "unmap", "backing": nil}
		if o.l2Cache > 0 {
			top["l2-cache-size"] = o.l2Cache
		}
		if m.backing != "" {
			top["backing"] = blockdev{"driver": raw, "read-only": true, "cache": cache,
				"file": blockdev{"driver": "file", "filename": m.backing, "read-only": true, "aio": o.aio, "cache": cache}}
		}
		nodes = append(nodes, top)
	case m.limit > 0:
		nodes = append(nodes, blockdev{"driver": raw, "node-name": "disk", "file": "file", "size": m.limit, "cache": cache, "discard": "unmap"})
	default:
		nodes[0]["node-name"] = "disk"
	}
	var args []string
	for _, n := range nodes {
		text, _ := json.Marshal(n) // strings, numbers and switches: it can't fail
		args = append(args, "--blockdev", string(text))
	}
	return command{name: "qemu-storage-daemon", args: append(args, exports...)}
}

func iothread(o serving) string {
	if o.pollMaxNS < 0 {
		return "iothread,id=io"
	}
	return fmt.Sprintf("iothread,id=io,poll-max-ns=%d", o.pollMaxNS)
}

// common are options of all exports.
func (o serving) common(writethrough bool) string {
	if writethrough {
		return ",id=export,node-name=disk,writable=on,writethrough=on"
	}
	return ",id=export,node-name=disk,writable=on"
}

func (o serving) sync() bool { return o.cache == "writethrough" || o.cache == "directsync" }

// nbdExport has no iothread: the daemon of QEMU 7.2 aborts when a client of such an
// export leaves.
func nbdExport(o serving) []string {
	return []string{"--nbd-server", "addr.type=unix,addr.path=" + quote(o.socket),
		"--export", "type=nbd,name=" + export + o.common(o.sync())}
}

// vhostUserExport: this back end tells guests that the disk has no write cache, so
// that they never flush, and caches all the same unless writethrough is on. Without,
// it would win every comparison by losing data.
func vhostUserExport(o serving) []string {
	text := "type=vhost-user-blk,num-queues=" + strconv.Itoa(max(o.queues, 1)) +
		",addr.type=unix,addr.path=" + quote(o.socket) + o.common(o.cache != "unsafe")
	if !o.iothread {
		return []string{"--export", text}
	}
	return []string{"--object", iothread(o), "--export", text + ",iothread=io"}
}

// filtersFor are those that concern a node, outermost first.
func filtersFor(text, node string) ([]string, error) {
	var out []string
	for f := range strings.FieldsSeq(text) {
		if name, rest, ok := strings.Cut(f, "@"); ok && len(name) == 1 {
			if name != node {
				continue
			}
			f = rest
		}
		if _, err := diskurl.ParseFilter(f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// iscsi exports an image by a target daemon of its own, on the loopback network.
func (b *builder) iscsi(ctx context.Context, d Disk, node string, m image) (Disk, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // finds a free port
	if err != nil {
		return d, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return d, err
	}
	socket := filepath.Join(b.own, node+".tgt")
	t := target{socket: socket, portal: addr, name: fmt.Sprintf("iqn.2024-01.com.github.vmdisk:set%d-%s", b.s.nextID, node), path: m.path}
	d.Source = spec.Source{Driver: "iscsi", URL: "iscsi://" + addr + "/" + t.name + "/1", Format: raw}
	// Its control socket is a name with a number appended.
	if err := b.started(ctx, &d, node, t.daemon(), socket+".0"); err != nil {
		return d, err
	}
	for _, c := range t.setUp() {
		if _, err := b.s.run(ctx, c); err != nil {
			return d, err
		}
	}
	return d, nil
}

// target is an iSCSI target of tgtd.
type target struct{ socket, portal, name, path string }

func (t target) env() []string { return []string{"TGT_IPC_SOCKET=" + t.socket} }

func (t target) daemon() command {
	return command{name: "tgtd", args: []string{"-f", "-C", "0", "--iscsi", "portal=" + t.portal}, env: t.env(), kill: true}
}

// setUp are the commands that make the target once its daemon runs.
func (t target) setUp() []command {
	base := []string{"-C", "0", "--lld", "iscsi", "--mode"}
	var all []command
	for _, more := range [][]string{
		{"target", "--op", "new", "--tid", "1", "-T", t.name},
		{"logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "-b", t.path},
		{"target", "--op", "bind", "--tid", "1", "-I", "127.0.0.1"},
	} {
		all = append(all, command{name: "tgtadm", args: append(append([]string{}, base...), more...), env: t.env()})
	}
	return all
}

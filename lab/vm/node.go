package vm

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Image formats.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
	formatLUKS  = "luks"
)

// Names of QEMU's objects for the guest's disk.
const (
	diskNode    = "disk"      // what the device is attached to
	diskFile    = "disk-file" // below an image format
	wholeNode   = "whole"     // what the disk, or its image, is the beginning of
	backingNode = "backing"
	backingFile = "backing-file"
	keySecret   = "disk-key"
)

// node is a block device node, QEMU's BlockdevOptions.
type node map[string]any

// cacheMode is what one of QEMU's five cache modes stands for.
type cacheMode struct {
	writeCache, direct, noFlush bool
}

var cacheModes = map[string]cacheMode{
	"writeback":    {writeCache: true},
	"none":         {writeCache: true, direct: true},
	"writethrough": {},
	"directsync":   {direct: true},
	"unsafe":       {writeCache: true, noFlush: true},
}

// local: a file or device of this host, where aio means something.
func local(driver string) bool { return driver == "file" || driver == "host_device" }

func checkNode(c Config) error {
	if blockless(c.Setup.Device) {
		return nil
	}
	mode, ok := cacheModes[c.Setup.Cache]
	switch {
	case !ok:
		return fmt.Errorf("cache %q: want writeback, none, writethrough, directsync or unsafe", c.Setup.Cache)
	case !slices.Contains([]string{"threads", "native", "io_uring"}, c.Setup.AIO):
		return fmt.Errorf("aio %q: want threads, native or io_uring", c.Setup.AIO)
	case c.Setup.AIO == "native" && !mode.direct && local(c.Disk.Driver):
		return fmt.Errorf("aio=native cannot be combined with cache=%s: it needs cache=none or directsync", c.Setup.Cache)
	case !slices.Contains([]string{formatRaw, formatQcow2, formatLUKS}, c.Disk.Format):
		return fmt.Errorf("the disk's format is %q: want raw, qcow2 or luks, a format is never guessed", c.Disk.Format)
	case c.Setup.L2Cache > 0 && c.Disk.Format != formatQcow2:
		return fmt.Errorf("l2-cache-size is of format=qcow2, this disk is %s", c.Disk.Format)
	case c.Disk.Size > 0 && c.Disk.Format == formatQcow2:
		return fmt.Errorf("a qcow2 image has a size of its own: give the disk none")
	case c.Disk.Format == formatLUKS && c.Disk.KeyFile == "":
		return fmt.Errorf("a LUKS disk needs a key file, none is given")
	}
	return nil
}

// nodes are those of the guest's disk, from the bottom up.
func nodes(c Config) ([]node, error) {
	bottom := diskNode
	if c.Disk.Format != formatRaw {
		bottom = diskFile
	}
	list, err := protocolNodes(c, bottom)
	if err != nil {
		return nil, err
	}
	switch c.Disk.Format {
	case formatQcow2:
		list = append(list, qcow2Nodes(c)...)
	case formatLUKS:
		list = append(list, common(c, node{"driver": "luks", "node-name": diskNode, "file": diskFile, "key-secret": keySecret}))
	}
	return list, nil
}

// common adds what every node of the disk has. A guest's discard reaches the
// backing; zeroes it writes stay writes, as it asked for.
func common(c Config, n node) node {
	mode := cacheModes[c.Setup.Cache]
	n["cache"] = map[string]bool{"direct": mode.direct, "no-flush": mode.noFlush}
	if _, ok := n["read-only"]; !ok {
		n["read-only"] = false
		n["discard"] = "unmap"
	}
	return n
}

// fileNode locks as QEMU does (OFD locks) and fails where it cannot: without,
// two guests could write to one disk.
func fileNode(c Config, name, driver, path string) node {
	return node{"driver": driver, "node-name": name, "filename": path, "locking": "on", "aio": c.Setup.AIO}
}

// qcow2Nodes: the backing file is named here once more, so that aio and cache are
// in force below the overlay too, where most reads end; QEMU opens what an image
// names with aio=threads. No backing given means none: the image's header does not
// decide what is opened.
func qcow2Nodes(c Config) []node {
	n := node{"driver": "qcow2", "node-name": diskNode, "file": diskFile, "backing": nil}
	if c.Setup.L2Cache > 0 {
		n["l2-cache-size"] = c.Setup.L2Cache
	}
	var list []node
	if c.Disk.Backing != "" {
		file := fileNode(c, backingFile, "file", c.Disk.Backing)
		file["read-only"] = true
		raw := node{"driver": "raw", "node-name": backingNode, "file": backingFile, "read-only": true}
		list = append(list, common(c, file), common(c, raw))
		n["backing"] = backingNode
	}
	return append(list, common(c, n))
}

// protocolNodes are what an image lies in: all of it, or its beginning.
func protocolNodes(c Config, name string) ([]node, error) {
	if c.Disk.Size == 0 {
		n, err := protocolNode(c, name)
		return []node{n}, err
	}
	n, err := protocolNode(c, wholeNode)
	return []node{n, common(c, node{"driver": "raw", "node-name": name, "file": wholeNode, "size": c.Disk.Size})}, err
}

func protocolNode(c Config, name string) (node, error) {
	d := c.Disk
	var n node
	switch d.Driver {
	case "file", "host_device":
		n = fileNode(c, name, d.Driver, d.Path)
	case "nbd":
		n = node{"driver": "nbd", "node-name": name, "server": map[string]string{"type": "unix", "path": d.Socket}, "export": d.Export}
	case "iscsi":
		var err error
		if n, err = iscsiNode(name, d.URL); err != nil {
			return nil, err
		}
	case "nvme":
		n = node{"driver": "nvme", "node-name": name, "device": d.Path, "namespace": 1}
	default:
		return nil, fmt.Errorf("disk by %q: want file, host_device, nbd, iscsi or nvme", d.Driver)
	}
	return common(c, n), nil
}

const iscsiPort = "3260"

// iscsiNode takes iscsi://HOST[:PORT]/TARGET/LUN.
func iscsiNode(name, address string) (node, error) {
	bad := func(why string) (node, error) {
		return nil, fmt.Errorf("iSCSI disk %q: %s: want iscsi://HOST[:PORT]/TARGET/LUN", address, why)
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "iscsi" || u.Host == "" {
		return bad("not such a URL")
	}
	if u.User != nil {
		return bad("it has a user, and a login is not supported")
	}
	target, lun, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	number, err := strconv.ParseUint(lun, 10, 16)
	if !ok || target == "" || err != nil {
		return bad("no target and unit number")
	}
	port := u.Port()
	if port == "" {
		port = iscsiPort
	}
	return node{"driver": "iscsi", "node-name": name, "transport": "tcp", "portal": net.JoinHostPort(u.Hostname(), port), "target": target, "lun": number}, nil
}

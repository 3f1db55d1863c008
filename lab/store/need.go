package store

import (
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// Need is the most space that the disks of a cell, with the golden disk and the
// host file system, will take in Dir and in memory, in bytes. written is how many
// bytes a node's workload writes at most (to different places or not), negative if
// that is not known. What is shared and there already is counted again; the Store's
// method does not do that.
func (o Options) Need(setup spec.Setup, nodes int, written int64) (diskBytes, memBytes int64) {
	n := newNeed(o, setup, written)
	each, shared := n.node()*int64(nodes), n.shared()
	if n.kind == "tmpfs" {
		// A RAM disk's own structures are not counted in its size.
		return shared, each + each/64
	}
	if n.kind == "url" && n.mem > 0 {
		return 0, n.mem * int64(nodes)
	}
	return each + shared + margin, 0
}

// margin is for sockets, keys, ledgers and folders.
const margin = 4 << 20

// Need is like Options.Need, less what is there already.
func (s *Store) Need(setup spec.Setup, nodes int, written int64) (diskBytes, memBytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.need(setup, nodes, written)
}

func (s *Store) need(setup spec.Setup, nodes int, written int64) (diskBytes, memBytes int64) {
	diskBytes, memBytes = s.o.Need(setup, nodes, written)
	n := newNeed(s.o, setup, written)
	if h, ok := s.hostFS[n.hostFS()]; ok || n.hostFS() == here {
		diskBytes -= n.hostFSBytes()
		dir := s.o.Dir
		if ok {
			dir = h.dir
		}
		if s.golden[goldenIn(dir)] {
			diskBytes -= n.golden()
		}
	}
	return diskBytes, memBytes
}

// need computes what a setup takes.
type need struct {
	o       Options
	setup   spec.Setup
	kind    string
	written int64
	mem     int64 // size of a mem: URL's disk
}

func newNeed(o Options, setup spec.Setup, written int64) need {
	n := need{o: o, setup: setup, written: written}
	var arg string
	if n.kind, arg = kindOf(setup.Backing); n.kind == "url" {
		for u := range strings.SplitSeq(arg, ";") {
			if u, err := diskurl.Parse(u); err == nil && u.Scheme() == diskurl.SchemeMem {
				n.mem = max(n.mem, u.Addr.(diskurl.SizeAddr).Size)
			}
		}
	}
	if written < 0 || written > o.Size {
		n.written = o.Size
	}
	return n
}

// hostFS that the set's files lie on.
func (n need) hostFS() string {
	if slices.Contains(fileBackings, n.kind) {
		return n.setup.HostFS
	}
	return here
}

func (n need) shared() int64 { return n.golden() + n.hostFSBytes() }

// golden is the golden disk, and the second copy of its data while mke2fs puts it
// in; and the qcow2 image made of it that reflinks share.
func (n need) golden() int64 {
	if n.kind == "url" {
		return 0
	}
	bytes := n.content()
	if n.o.FileSystem == "ext4" {
		bytes += n.o.Data
	}
	if n.kind == "reflink" && n.setup.Format == qcow2 {
		bytes += n.content() + n.tables()
	}
	return bytes
}

// content is the golden disk's.
func (n need) content() int64 { return n.o.Data + fsTables(n.o.FileSystem, n.o.Size) }

// fsTables is a bound of what mkfs writes, its journal for the most part. Measured
// on disks of 1 and of 100 GiB: ext4 33 and 530 MiB, xfs 65 both, btrfs 5 both.
func fsTables(fileSystem string, size int64) int64 {
	switch fileSystem {
	case "ext4":
		return 16<<20 + min(size/24, 1<<30) + size/4096
	case "xfs":
		return 80<<20 + min(size/1024, 2<<30)
	case "btrfs":
		return 32<<20 + size/1024
	}
	return 0
}

func (n need) hostFSBytes() int64 {
	if n.hostFS() == here {
		return 0
	}
	return fsTables(n.hostFS(), 64<<30)
}

// node is what one node's disk takes.
func (n need) node() int64 {
	data := n.o.Size
	if !n.whole() {
		data = min(n.o.Size, n.begins()+n.writes())
	}
	switch n.kind {
	case "device", "url":
		return 0
	case "zvol", "zvol-clone":
		data += data / 8 // checksums and block pointers of small blocks
	}
	if n.setup.Server == luks {
		data += luksRoom
	}
	return data + n.tables()
}

// whole: every block is allocated before or by the measurement.
func (n need) whole() bool {
	prealloc := n.setup.Preallocation == "falloc" || n.setup.Preallocation == "full"
	return n.kind == "falloc" || n.kind == "full" || prealloc || n.setup.Pass == "second" || n.setup.Server == luks
}

// begins is what a node's disk takes at first.
func (n need) begins() int64 {
	switch n.kind {
	case "reflink", "overlay", "lvm-snapshot", "lvm-thin", "zvol-clone":
		return 0
	case "sparse":
		return fsTables(n.o.FileSystem, n.o.Size) + n.dataOfFileSystem()
	}
	return n.content()
}

func (n need) dataOfFileSystem() int64 {
	if n.o.FileSystem == "none" {
		return 0
	}
	return n.o.Data
}

// writes is what the workload's writes take: what is allocated at once is more than
// a small write.
func (n need) writes() int64 {
	least := int64(unit)
	switch {
	case n.kind == "lvm-thin":
		least = 64 << 10
	case n.setup.Format != qcow2 && n.kind != "overlay":
	case n.setup.ClusterSize > 0:
		least = n.setup.ClusterSize
	default:
		least = 64 << 10
	}
	if n.setup.ExtendedL2 {
		least = max(least/32, unit)
	}
	if least <= unit {
		return n.written
	}
	if factor := least / unit; n.written < n.o.Size/factor {
		return n.written * factor
	}
	return n.o.Size
}

// tables are qcow2's, of 16 bytes a cluster, and the file system's of the file.
func (n need) tables() int64 {
	bytes := n.o.Size/1024 + 1<<20
	if n.setup.Format == qcow2 || n.kind == "overlay" {
		cluster := n.setup.ClusterSize
		if cluster == 0 {
			cluster = 64 << 10
		}
		bytes += n.o.Size/cluster*20 + 4*cluster
	}
	return bytes
}

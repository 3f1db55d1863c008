package qcow2

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vmdisk/vmdisk/disk"
)

// The limits are QEMU's: what exceeds them opens nowhere, and would cost memory here.
const (
	minClusterBits, maxClusterBits = 9, 21
	minExtendedBits                = 14
	maxL1Bytes                     = 32 << 20
	maxRefTableBytes               = 8 << 20
	maxSnapshots                   = 65536
	maxNameBytes                   = 1023
	maxRefcountOrder               = 6

	headerV2 = 72
	headerV3 = 104
	// offsetMask are the bits of an entry that are an offset.
	offsetMask = 1<<56 - 1<<9
)

// Incompatible features.
const (
	featDirty uint64 = 1 << iota
	featCorrupt
	featDataFile
	featCompression
	featExtendedL2

	knownFeatures = featDirty | featCorrupt | featDataFile | featCompression | featExtendedL2
)

const featLazyRefcounts uint64 = 1 // compatible

// Autoclear features.
const (
	clearBitmaps uint64 = 1 << iota
	clearRawData
)

// Compression types.
const (
	compressZlib = 0
	compressZstd = 1
)

// header is the header as it is on disk, extensions included.
type header struct {
	version           uint32
	backingOffset     uint64
	backingSize       uint32
	clusterBits       uint32
	size              uint64
	crypt             uint32
	l1Size            uint32
	l1Offset          uint64
	refTableOffset    uint64
	refTableClusters  uint32
	snapshots         uint32
	snapshotsOffset   uint64
	incompatible      uint64
	compatible        uint64
	autoclear         uint64
	refcountOrder     uint32
	length            uint32
	compression       uint8
	backing           string
	extensions        extensions
	cluster, fileSize int64
}

var magic = [4]byte{'Q', 'F', 'I', 0xfb}

// parseFixed parses the fixed part from the first bytes of a file, at least
// headerV3 of them or the whole file.
func parseFixed(p []byte) (*header, error) {
	if len(p) < headerV2 || [4]byte(p) != magic {
		return nil, fmt.Errorf("this is no qcow2 image: it does not begin with its magic")
	}
	be := binary.BigEndian
	h := &header{
		version: be.Uint32(p[4:]), backingOffset: be.Uint64(p[8:]), backingSize: be.Uint32(p[16:]),
		clusterBits: be.Uint32(p[20:]), size: be.Uint64(p[24:]), crypt: be.Uint32(p[32:]),
		l1Size: be.Uint32(p[36:]), l1Offset: be.Uint64(p[40:]), refTableOffset: be.Uint64(p[48:]),
		refTableClusters: be.Uint32(p[56:]), snapshots: be.Uint32(p[60:]), snapshotsOffset: be.Uint64(p[64:]),
		refcountOrder: 4, length: headerV2,
	}
	switch {
	case h.version == 1:
		return nil, fmt.Errorf("version 1 of the format, qcow, is not read: `qemu-img convert -O qcow2` makes it a newer one")
	case h.version != 2 && h.version != 3:
		return nil, fmt.Errorf("version %d of qcow2 is unknown: 2 and 3 are read", h.version)
	case h.version == 3 && len(p) < headerV3:
		return nil, corrupt("the file ends within the header")
	}
	if h.version == 3 {
		h.incompatible, h.compatible, h.autoclear = be.Uint64(p[72:]), be.Uint64(p[80:]), be.Uint64(p[88:])
		h.refcountOrder, h.length = be.Uint32(p[96:]), be.Uint32(p[100:])
	}
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		return nil, corrupt("clusters of 2^%d bytes; 512 bytes to 2 MiB are read", h.clusterBits)
	}
	h.cluster = 1 << h.clusterBits
	if h.length < headerV3 && h.version == 3 || h.length%8 != 0 || int64(h.length) > h.cluster {
		return nil, corrupt("the header's length is %d bytes", h.length)
	}
	return h, nil
}

// parseRest parses what follows the fixed part, from the whole first cluster.
func (h *header) parseRest(p []byte) error {
	if int64(h.length) > int64(len(p)) {
		return corrupt("the file ends within the header")
	}
	if h.length > 104 {
		h.compression = p[104]
	}
	end := int64(len(p))
	if h.backingOffset != 0 {
		if h.backingSize > maxNameBytes || h.backingOffset < uint64(h.length) || h.backingOffset > uint64(end) ||
			int64(h.backingSize) > end-int64(h.backingOffset) {
			return corrupt("the backing file's name (%d bytes at offset %d) is not inside the first cluster", h.backingSize, h.backingOffset)
		}
		end = int64(h.backingOffset)
		h.backing = string(p[end:][:h.backingSize])
	}
	return h.extensions.parse(p[h.length:end])
}

// check refuses what this package cannot do, and what cannot be.
func (h *header) check(fileSize int64) error {
	h.fileSize = fileSize
	if unknown := h.incompatible &^ knownFeatures; unknown != 0 {
		return fmt.Errorf("the image needs features that are not known here (%s): %w", h.extensions.featureNames(unknown), errUnsupported)
	}
	if h.crypt != 0 {
		return fmt.Errorf("the image is encrypted (%s), which is not read yet: %w", cryptName(h.crypt), errUnsupported)
	}
	if h.extended() && h.clusterBits < minExtendedBits {
		return corrupt("extended L2 entries with clusters of %d bytes; they need 16 KiB", h.cluster)
	}
	if h.refcountOrder > maxRefcountOrder {
		return corrupt("refcounts of 2^%d bits; 64 bits are the most", h.refcountOrder)
	}
	if h.size > math.MaxInt64 {
		return corrupt("a size of %d bytes", h.size)
	}
	if err := h.checkCompression(); err != nil {
		return err
	}
	return h.checkTables()
}

func (h *header) checkCompression() error {
	switch {
	case h.compression > compressZstd:
		return fmt.Errorf("compression type %d is not known: %w", h.compression, errUnsupported)
	case (h.compression != compressZlib) != (h.incompatible&featCompression != 0):
		return corrupt("the compression type %d and its feature bit contradict each other", h.compression)
	}
	return nil
}

// checkTables bounds the tables before they are read.
func (h *header) checkTables() error {
	g := h.geometry()
	need := g.l1Entries(int64(h.size))
	switch {
	case need > maxL1Bytes/8:
		return corrupt("%d bytes need an L1 table of %d entries; the limit is %d", h.size, need, maxL1Bytes/8)
	case h.l1Size > maxL1Bytes/8:
		return corrupt("the L1 table has %d entries; the limit is %d", h.l1Size, maxL1Bytes/8)
	case int64(h.l1Size) < need:
		return corrupt("the L1 table has %d entries, and %d bytes need %d", h.l1Size, h.size, need)
	case int64(h.refTableClusters) > maxRefTableBytes>>h.clusterBits:
		return corrupt("the refcount table has %d clusters; the limit is 8 MiB", h.refTableClusters)
	case h.refTableClusters == 0:
		return corrupt("there is no refcount table")
	case h.snapshots > maxSnapshots:
		return corrupt("%d snapshots; the limit is %d", h.snapshots, maxSnapshots)
	}
	for _, t := range []struct {
		name   string
		offset uint64
		n      int64
	}{
		{"L1 table", h.l1Offset, int64(h.l1Size) * 8},
		{"refcount table", h.refTableOffset, int64(h.refTableClusters) << h.clusterBits},
		{"snapshot table", h.snapshotsOffset, int64(h.snapshots) * 40},
	} {
		if err := h.inside(t.name, t.offset, t.n); err != nil {
			return err
		}
	}
	return nil
}

// inside reports a table that is not in the file. The first cluster is the header's.
func (h *header) inside(name string, offset uint64, n int64) error {
	switch {
	case n == 0:
		return nil
	case offset&uint64(h.cluster-1) != 0 || offset == 0:
		return corrupt("the %s is at offset %d, which is no cluster's", name, offset)
	case offset > uint64(h.fileSize) || n > h.fileSize-int64(offset):
		return corrupt("the %s (%d bytes at offset %d) is not inside the file of %d bytes: is the file cut short?", name, n, offset, h.fileSize)
	}
	return nil
}

func (h *header) extended() bool { return h.incompatible&featExtendedL2 != 0 }
func (h *header) dataFile() bool { return h.incompatible&featDataFile != 0 }

// rawData: the data file is the disk itself, readable without the image.
func (h *header) rawData() bool { return h.dataFile() && h.autoclear&clearRawData != 0 }

func cryptName(method uint32) string {
	switch method {
	case 1:
		return "AES"
	case 2:
		return "LUKS"
	}
	return fmt.Sprintf("method %d", method)
}

func corrupt(format string, a ...any) error {
	return fmt.Errorf("%w: %s", disk.ErrCorrupt, fmt.Sprintf(format, a...))
}

// fixed encodes the fixed part, as far as this version of the format has it.
func (h *header) fixed() []byte {
	p := make([]byte, 0, headerV3)
	be := binary.BigEndian
	p = append(p, magic[:]...)
	p = be.AppendUint32(p, h.version)
	p = be.AppendUint64(p, h.backingOffset)
	p = be.AppendUint32(p, h.backingSize)
	p = be.AppendUint32(p, h.clusterBits)
	p = be.AppendUint64(p, h.size)
	p = be.AppendUint32(p, h.crypt)
	p = be.AppendUint32(p, h.l1Size)
	p = be.AppendUint64(p, h.l1Offset)
	p = be.AppendUint64(p, h.refTableOffset)
	p = be.AppendUint32(p, h.refTableClusters)
	p = be.AppendUint32(p, h.snapshots)
	p = be.AppendUint64(p, h.snapshotsOffset)
	if h.version < 3 {
		return p
	}
	p = be.AppendUint64(p, h.incompatible)
	p = be.AppendUint64(p, h.compatible)
	p = be.AppendUint64(p, h.autoclear)
	p = be.AppendUint32(p, h.refcountOrder)
	return be.AppendUint32(p, h.length)
}

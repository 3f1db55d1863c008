package qcow2

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/vmdisk/vmdisk/disk"
)

// l1Table is the active L1 table, all of it in memory.
type l1Table struct {
	mu      sync.RWMutex
	entries []uint64
	cluster int64
}

const readChunk = 1 << 20

// readWords reads n big-endian words.
func readWords(ctx context.Context, d *disk.Disk, off, n int64) ([]uint64, error) {
	words := make([]uint64, n)
	buf := make([]byte, min(n*8, readChunk))
	for i := int64(0); i < n; {
		part := min(n-i, int64(len(buf)/8))
		if err := d.ReadAt(ctx, buf[:part*8], off+i*8); err != nil {
			return nil, err
		}
		decodeWords(words[i:i+part], buf)
		i += part
	}
	return words, nil
}

func decodeWords(words []uint64, p []byte) {
	for i := range words {
		words[i] = binary.BigEndian.Uint64(p[i*8:])
	}
}

// table returns the offset of the L2 table i, 0 if there is none.
func (t *l1Table) table(i int64) (int64, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.checked(t.entries[i])
}

func (t *l1Table) checked(e uint64) (int64, error) {
	off := int64(e & offsetMask)
	if off&(t.cluster-1) != 0 {
		return 0, corrupt("an L1 entry points to offset %d, which is no cluster's", off)
	}
	return off, nil
}

// emptyUntil is the number of the first entry after i that has a table, last+1 if
// none has up to last.
func (t *l1Table) emptyUntil(i, last int64) int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i++; i <= last && t.entries[i]&offsetMask == 0; i++ {
	}
	return i
}

func (t *l1Table) get(i int64) uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.entries[i]
}

func (t *l1Table) set(i int64, e uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries[i] = e
}

// sector encodes 512 bytes of the table, the last of it padded with zeros.
func (t *l1Table) sector(n int64) []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := make([]byte, 0, 512)
	for _, e := range t.entries[n*l1PerSector : min((n+1)*l1PerSector, int64(len(t.entries)))] {
		p = binary.BigEndian.AppendUint64(p, e)
	}
	return p[:cap(p)]
}

package qcow2

import (
	"context"
	"math/bits"
)

// geometry is how guest offsets find their entries.
type geometry struct {
	clusterBits uint
	cluster     int64
	words       int64 // per L2 entry: 1, extended 2
	perTable    int64 // entries of an L2 table
	perSlice    int64 // entries of a slice of one, the unit of the cache
	sub         int64 // bytes of a subcluster; a cluster without extended entries
	version     uint32
	ownData     bool // guest clusters are in the image itself
}

const (
	subclusters   = 32
	sliceBytes    = 16 << 10
	flagCopied    = 1 << 63
	flagCompress  = 1 << 62
	flagZero      = 1
	allSubs       = 1<<subclusters - 1
	sectorBits    = 9
	descriptorTop = 62 // where a compressed descriptor ends
)

func (h *header) geometry() geometry {
	g := geometry{clusterBits: uint(h.clusterBits), cluster: h.cluster, words: 1, sub: h.cluster,
		version: h.version, ownData: !h.dataFile()}
	if h.extended() {
		g.words, g.sub = 2, h.cluster/subclusters
	}
	g.perTable = h.cluster / (8 * g.words)
	g.perSlice = min(h.cluster, sliceBytes) / (8 * g.words)
	return g
}

// l1Entries is the length of the L1 table that size bytes need. Both shifts are of
// values that cannot overflow.
func (g *geometry) l1Entries(size int64) int64 {
	clusters := size >> g.clusterBits
	if size&(g.cluster-1) != 0 {
		clusters++
	}
	n := clusters / g.perTable
	if clusters%g.perTable != 0 {
		n++
	}
	return n
}

// tableSpan is what one L2 table maps, in bytes.
func (g *geometry) tableSpan() int64 { return g.perTable << g.clusterBits }

type kind uint8

const (
	unallocated kind = iota // backing file, or zeros
	zeroPlain
	zeroAlloc // zeros, with a cluster that is kept for them
	normal
	compressed
)

// run is a range of the disk that is mapped in one way.
type run struct {
	kind kind
	n    int64
	host int64  // of the first byte: normal and zeroAlloc
	desc uint64 // of a compressed cluster
	// copied: nothing else uses the clusters, which may be written in place.
	copied bool
}

// entry is an L2 entry.
type entry struct {
	word   uint64
	bitmap uint64 // extended entries alone
}

func (e entry) offset() int64 { return int64(e.word & offsetMask) }

// decode tells what the entry says of the subcluster sub (0 without extended ones) and
// how many subclusters from there on are alike.
func (g *geometry) decode(e entry, sub int64) (kind, int64, error) {
	if e.word&flagCompress != 0 {
		if !g.ownData {
			return 0, 0, corrupt("a compressed cluster in an image with an external data file")
		}
		return compressed, g.cluster/g.sub - sub, nil
	}
	off := e.offset()
	if off&(g.cluster-1) != 0 {
		return 0, 0, corrupt("an L2 entry points to offset %d, which is no cluster's", off)
	}
	allocated := off != 0 || !g.ownData && e.word&flagCopied != 0
	if g.words == 2 {
		return decodeBitmap(e.bitmap, allocated, sub)
	}
	switch {
	case e.word&flagZero != 0 && g.version < 3:
		return 0, 0, corrupt("a zero cluster in an image of version 2")
	case e.word&flagZero != 0 && allocated:
		return zeroAlloc, 1, nil
	case e.word&flagZero != 0:
		return zeroPlain, 1, nil
	case allocated:
		return normal, 1, nil
	}
	return unallocated, 1, nil
}

func decodeBitmap(bitmap uint64, allocated bool, sub int64) (kind, int64, error) {
	data, zeros := uint32(bitmap), uint32(bitmap>>32)
	switch {
	case data&zeros != 0:
		return 0, 0, corrupt("a subcluster is allocated and zero at once")
	case data != 0 && !allocated:
		return 0, 0, corrupt("a subcluster is allocated in a cluster that is not")
	}
	var same uint32
	k := unallocated
	switch bit := uint32(1) << sub; {
	case data&bit != 0:
		k, same = normal, data
	case zeros&bit != 0 && allocated:
		k, same = zeroAlloc, zeros
	case zeros&bit != 0:
		k, same = zeroPlain, zeros
	default:
		same = ^(data | zeros)
	}
	// The shift brings zeros in, which end the run at the last subcluster.
	return k, int64(bits.TrailingZeros32(^(same >> sub))), nil
}

// lookup returns the run that begins at off, at most n bytes long.
func (d *driver) lookup(ctx context.Context, off, n int64) (run, error) {
	g := &d.geometry
	i := off / g.tableSpan()
	table, err := d.l1.table(i)
	if err != nil {
		return run{}, err
	}
	if table == 0 {
		last := (off + n - 1) / g.tableSpan()
		if next := d.l1.emptyUntil(i, last); next <= last {
			n = next*g.tableSpan() - off
		}
		return run{n: n}, nil
	}
	first := off >> g.clusterBits
	at := first % g.perTable
	s, err := d.l2.get(ctx, table+at/g.perSlice*g.perSlice*g.words*8)
	if err != nil {
		return run{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return g.scan(s.words, at%g.perSlice, off&(g.cluster-1), n)
}

// scan collects the run that begins in the entry at index i of a slice, skip bytes
// into its cluster.
func (g *geometry) scan(words []uint64, i, skip, n int64) (run, error) {
	var r run
	for ; i < g.perSlice && r.n < n; i++ {
		e := g.entryAt(words, i)
		for sub := skip / g.sub; sub < g.cluster/g.sub && r.n < n; {
			k, same, err := g.decode(e, sub)
			if err != nil {
				if r.n > 0 {
					return r, nil // the fault is that of the next lookup
				}
				return run{}, err
			}
			host := e.offset() + skip
			switch {
			case r.n == 0:
				r.kind, r.host, r.desc, r.copied = k, host, e.word, e.word&flagCopied != 0
			case k != r.kind || k == compressed || k == normal && r.copied != (e.word&flagCopied != 0) || k >= zeroAlloc && host != r.host+r.n:
				return r, nil
			}
			sub += same
			r.n += sub*g.sub - skip
			skip = sub * g.sub
		}
		skip = 0
	}
	r.n = min(r.n, n)
	return r, nil
}

func (g *geometry) entryAt(words []uint64, i int64) entry {
	if g.words == 2 {
		return entry{word: words[2*i], bitmap: words[2*i+1]}
	}
	return entry{word: words[i]}
}

// descriptor takes the descriptor of a compressed cluster apart: where its data begin
// and how many bytes they have at the most.
func (g *geometry) descriptor(desc uint64) (host, n int64) {
	x := descriptorTop - (g.clusterBits - 8)
	host = int64(desc & (1<<x - 1) & (1<<56 - 1))
	sectors := int64(desc>>x&(1<<(descriptorTop-x)-1)) + 1
	return host, sectors<<sectorBits - host&(1<<sectorBits-1)
}

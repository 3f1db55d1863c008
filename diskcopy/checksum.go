package diskcopy

import (
	"context"
	"crypto/md5"  //nolint:gosec // as sha1
	"crypto/sha1" //nolint:gosec // the API offers it; what is compared is a copy, not a signature
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"runtime"
	"strings"
	"time"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/ripemd160" //nolint:staticcheck,gosec // as sha1

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy/sm3"
)

// ChecksumOptions configures Checksum; the zero value is the default.
type ChecksumOptions struct {
	// Algorithm is one of Algorithms; default the first.
	Algorithm string
	// BlockSize in bytes: a multiple of 4096 from 4 KiB to 64 MiB. Default 4 MiB.
	BlockSize int64
	// Workers is how many blocks are hashed at a time. Default: one for each CPU.
	Workers int
	// Progress and ProgressEvery are as in Options.
	Progress      func(Progress)
	ProgressEvery time.Duration
}

// Digest is the result of Checksum. It means the same only for equal Algorithm
// and BlockSize.
type Digest struct {
	Algorithm string `json:"algorithm"`
	BlockSize int64  `json:"block_size"`
	Checksum  string `json:"checksum"` // hexadecimal
}

// algorithms by the names that Python's hashlib gives them in the image transfer API,
// in that API's order; BLAKE2 has 32 bytes there. The default is the first.
var algorithms = []struct {
	name string
	make func() hash.Hash
}{
	{"blake2b", func() hash.Hash { h, _ := blake2b.New256(nil); return h }}, // fails for long keys only
	{"blake2s", func() hash.Hash { h, _ := blake2s.New256(nil); return h }},
	{"md5", md5.New},
	{"md5-sha1", func() hash.Hash { return both{md5.New(), sha1.New()} }},
	{"ripemd160", ripemd160.New},
	{"sha1", sha1.New},
	{"sha224", sha256.New224},
	{"sha256", sha256.New},
	{"sha384", sha512.New384},
	{"sha3_224", func() hash.Hash { return sha3.New224() }},
	{"sha3_256", func() hash.Hash { return sha3.New256() }},
	{"sha3_384", func() hash.Hash { return sha3.New384() }},
	{"sha3_512", func() hash.Hash { return sha3.New512() }},
	{"sha512", sha512.New},
	{"sha512_224", sha512.New512_224},
	{"sha512_256", sha512.New512_256},
	{"sm3", sm3.New},
}

// both is two hashes of the same data, one after the other.
type both [2]hash.Hash

func (b both) Write(p []byte) (int, error) {
	_, _ = b[0].Write(p) // a hash's Write never fails
	return b[1].Write(p)
}
func (b both) Sum(p []byte) []byte { return b[1].Sum(b[0].Sum(p)) }
func (b both) Reset()              { b[0].Reset(); b[1].Reset() }
func (b both) Size() int           { return b[0].Size() + b[1].Size() }
func (b both) BlockSize() int      { return b[0].BlockSize() }

// Algorithms lists what Checksum can use, the default first.
func Algorithms() []string {
	names := make([]string, 0, len(algorithms))
	for _, a := range algorithms {
		names = append(names, a.name)
	}
	return names
}

func newHash(name string) (func() hash.Hash, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a.make, nil
		}
	}
	return nil, fmt.Errorf("unknown checksum algorithm %q: use one of %s", name, strings.Join(Algorithms(), ", "))
}

// readSize is the request size of Checksum.
const readSize = 1 << 20

// Checksum computes H(H(b1) + H(b2) + …) over the disk's blocks, the last of
// which may be short. It depends on the content alone: holes count as zeros and
// are neither read nor hashed one by one. With the defaults (H is BLAKE2b with
// 32 bytes) this is the checksum of the oVirt image transfer API.
func Checksum(ctx context.Context, d *disk.Disk, o ChecksumOptions) (Digest, error) {
	o.Algorithm = orDefault(o.Algorithm, Algorithms()[0])
	o.BlockSize = orDefault(o.BlockSize, 4<<20)
	o.Workers = orDefault(o.Workers, runtime.GOMAXPROCS(0))
	newHash, err := newHash(o.Algorithm)
	if err != nil {
		return Digest{}, err
	}
	if o.BlockSize < 4096 || o.BlockSize > 64<<20 || o.BlockSize%4096 != 0 {
		return Digest{}, fmt.Errorf("block size %d is not a multiple of 4096 up to 64 MiB", o.BlockSize)
	}
	if o.Workers < 1 || o.Workers > maxDepth {
		return Digest{}, errDepth
	}
	s := newSummer(ctx, d, o, newHash)
	p := startProgress(Options{Progress: o.Progress, ProgressEvery: o.ProgressEvery}, "checksum", s.size, &s.done, d)
	err = s.run(o.Workers, readSize, s.work)
	p.stop()
	if err != nil {
		return Digest{}, err
	}
	return Digest{o.Algorithm, o.BlockSize, hex.EncodeToString(s.outer.Sum(nil))}, nil
}

// summer hands out blocks in order and takes their digests in any order, but no
// further than a window ahead, so its memory does not grow with the disk.
type summer struct {
	readers
	ctx     context.Context
	d       *disk.Disk
	size    int64
	block   int64
	newHash func() hash.Hash
	zero    []byte // the digest of a whole block of zeros

	walk   *walker
	cur    span
	next   int64    // the next block to hand out
	taken  int64    // blocks that outer has
	window [][]byte // digests of blocks from taken on, at index modulo length; nil: not there yet
	outer  hash.Hash
}

func newSummer(ctx context.Context, d *disk.Disk, o ChecksumOptions, newHash func() hash.Hash) *summer {
	s := &summer{ctx: ctx, d: d, size: d.Size(), block: o.BlockSize, newHash: newHash, outer: newHash(), window: make([][]byte, 8*o.Workers)}
	s.walk = newWalker(d, 0, s.size, o.BlockSize, 1)
	h := newHash()
	for n := o.BlockSize; n > 0; n -= int64(len(zeroBlock)) {
		h.Write(zeroBlock[:])
	}
	s.zero = h.Sum(nil)
	return s
}

// length of block i.
func (s *summer) length(i int64) int64 { return min(s.block, s.size-i*s.block) }

// take returns the next block that has to be read; false at the end.
func (s *summer) take() (i int64, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && s.next*s.block < s.size {
		if s.next-s.taken >= int64(len(s.window)) {
			s.wake.Wait()
			continue
		}
		if err := s.ctx.Err(); err != nil {
			return 0, false, err
		}
		i = s.next
		hole, err := s.isHole(i*s.block, s.length(i))
		if err != nil {
			return 0, false, err
		}
		s.next++
		if !hole {
			return i, true, nil
		}
		s.put(i, s.zero)
	}
	return 0, false, nil
}

// isHole reports whether a whole block is known to be zero.
func (s *summer) isHole(off, n int64) (bool, error) {
	hole := n == s.block
	for end := off + n; ; {
		if s.cur.n > 0 && s.cur.end() > off {
			hole = hole && s.cur.zero
			if s.cur.end() >= end {
				return hole, nil
			}
		}
		var err error
		if s.cur, err = s.walk.next(s.ctx); err != nil {
			return false, err
		}
	}
}

// put stores a digest, which stays in use, and passes on what is in order.
func (s *summer) put(i int64, sum []byte) {
	s.window[i%int64(len(s.window))] = sum
	for {
		slot := &s.window[s.taken%int64(len(s.window))]
		if *slot == nil {
			break
		}
		s.outer.Write(*slot)
		s.done.Add(s.length(s.taken))
		*slot = nil
		s.taken++
	}
	s.wake.Broadcast()
}

func (s *summer) work(buf []byte) error {
	h := s.newHash()
	for {
		i, ok, err := s.take()
		if err != nil || !ok {
			return err
		}
		sum, err := s.sum(h, buf, i*s.block, s.length(i))
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.put(i, sum)
		s.mu.Unlock()
	}
}

// sum hashes one block. Zeros at its head are put off, since most blocks with
// zeros there are nothing else, and comparing is much cheaper than hashing.
func (s *summer) sum(h hash.Hash, buf []byte, off, n int64) ([]byte, error) {
	h.Reset()
	zeros := int64(0)
	for at := int64(0); at < n; {
		p := buf[:min(int64(len(buf)), n-at)]
		if err := s.d.ReadAt(s.ctx, p, off+at); err != nil {
			return nil, err
		}
		at += int64(len(p))
		if zeros == at-int64(len(p)) && isZero(p) {
			zeros = at
			continue
		}
		for ; zeros > 0; zeros -= min(zeros, int64(len(zeroBlock))) {
			h.Write(zeroBlock[:min(zeros, int64(len(zeroBlock)))])
		}
		zeros = -1
		h.Write(p)
	}
	if zeros == s.block {
		return s.zero, nil
	}
	for ; zeros > 0; zeros -= min(zeros, int64(len(zeroBlock))) {
		h.Write(zeroBlock[:min(zeros, int64(len(zeroBlock)))])
	}
	return h.Sum(nil), nil
}

package file

import (
	"github.com/vmdisk/vmdisk/uring"
)

// O_DIRECT wants offset, length and memory aligned. The Disk above sees to
// offset and length, except at the end of a file whose size is no multiple of
// the sector; memory is bounced here.

const (
	bounceLen  = 1 << 20
	bouncesMax = 16 // kept for later
)

var bounces = make(chan []byte, bouncesMax)

func getBounce() ([]byte, error) {
	select {
	case b := <-bounces:
		return b, nil
	default:
		return uring.Alloc(bounceLen)
	}
}

func putBounce(b []byte) {
	select {
	case bounces <- b:
	default:
		uring.Free(b)
	}
}

func (f *File) alignedMem(p []byte) bool { return uring.Aligned(p, int(f.memAlign)) }

// alignedVec reports whether vec can be handed to the kernel as it is.
func (f *File) alignedVec(vec [][]byte, n int64) bool {
	for _, p := range vec {
		if !f.alignedMem(p) {
			return false
		}
	}
	return n&(f.ioAlign-1) == 0
}

func (f *File) readDirect(p []byte, off int64) error {
	if f.alignedMem(p) && int64(len(p))&(f.ioAlign-1) == 0 {
		return readFull(f.fd, p, off)
	}
	vec := [1][]byte{p}
	return f.readBounced(vec[:], off, int64(len(p)))
}

func (f *File) writeDirect(p []byte, off int64, rwf int) error {
	if f.alignedMem(p) && !f.nearTail(off, int64(len(p))) {
		return writeFull(f.fd, p, off, rwf)
	}
	vec := [1][]byte{p}
	return f.writeBounced(vec[:], off, int64(len(p)), rwf)
}

func (f *File) readBounced(vec [][]byte, off, n int64) error {
	buf, err := getBounce()
	if err != nil {
		return err
	}
	defer putBounce(buf)
	c := cursor{vec: vec}
	for n > 0 {
		part := min(n, int64(len(buf)))
		if err := f.readWhole(buf[:part], off); err != nil {
			return err
		}
		if err := c.fill(buf[:part]); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// readWhole reads whole sectors directly and a partial one, at the end of the
// file, through the page cache.
func (f *File) readWhole(p []byte, off int64) error {
	whole := int64(len(p)) &^ (f.ioAlign - 1)
	if err := readFull(f.fd, p[:whole], off); err != nil {
		return err
	}
	return readFull(f.plain, p[whole:], off+whole)
}

func (f *File) writeBounced(vec [][]byte, off, n int64, rwf int) error {
	buf, err := getBounce()
	if err != nil {
		return err
	}
	defer putBounce(buf)
	c := cursor{vec: vec}
	for n > 0 {
		part := min(n, int64(len(buf)))
		if err := c.drain(buf[:part]); err != nil {
			return err
		}
		if err := f.writeWhole(buf[:part], off, rwf); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// tailZone is how near to a partial last sector a direct write must be to share
// a page (or a large folio) of the page cache with it.
const tailZone = 2 << 20

// nearTail reports whether a write could meet, in the page cache, a write to the
// partial sector at the end. That one is made through the page cache, so it
// dirties a page that holds other sectors too; a direct write to those at the
// same moment would be undone when the page is written back. The lock `tail`
// keeps the two apart. Of a file that has grown, a write to the end that it had may
// still be under way.
func (f *File) nearTail(off, n int64) bool {
	end, old := f.size.Load(), f.oldEnd.Load()
	return end&(f.ioAlign-1) != 0 && off+n > end-tailZone ||
		old != 0 && off+n > old-tailZone && off < old+tailZone
}

func (f *File) writeWhole(p []byte, off int64, rwf int) error {
	whole := int64(len(p)) &^ (f.ioAlign - 1)
	if whole > 0 {
		if err := f.writeSectors(p[:whole], off, rwf); err != nil {
			return err
		}
	}
	if whole == int64(len(p)) {
		return nil
	}
	f.tail.Lock()
	defer f.tail.Unlock()
	return writeFull(f.plain, p[whole:], off+whole, rwf)
}

func (f *File) writeSectors(p []byte, off int64, rwf int) error {
	if f.nearTail(off, int64(len(p))) {
		f.tail.RLock()
		defer f.tail.RUnlock()
	}
	return writeFull(f.fd, p, off, rwf)
}

// cursor walks through the bytes of a vector.
type cursor struct {
	vec  [][]byte
	done int // bytes of vec[0] already used
}

// fill copies src into the vector's next bytes, drain the vector's next bytes
// into dst; both let the kernel copy, see Info.KernelIO.
func (c *cursor) fill(src []byte) error {
	return c.walk(len(src), func(p []byte, at int) error { return kernelCopy(p, src[at:at+len(p)]) })
}

func (c *cursor) drain(dst []byte) error {
	return c.walk(len(dst), func(p []byte, at int) error { return kernelCopy(dst[at:at+len(p)], p) })
}

func (c *cursor) walk(n int, use func(p []byte, at int) error) error {
	for at := 0; at < n; {
		p := c.vec[0][c.done:]
		p = p[:min(len(p), n-at)]
		if err := use(p, at); err != nil {
			return err
		}
		at += len(p)
		if c.done += len(p); c.done == len(c.vec[0]) {
			c.vec, c.done = c.vec[1:], 0
		}
	}
	return nil
}

func kernelCopy(dst, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	if !uring.CanCopyByKernel() {
		copy(dst, src)
		return nil
	}
	if err := uring.CopyByKernel(dst, src); err != nil {
		return err
	}
	return nil
}

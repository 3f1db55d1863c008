package server

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/splice"
)

// upload is the body of one PUT on its way to the disk.
type upload struct {
	c     *conn
	op    *operation
	d     *disk.Disk
	body  *body
	off   int64 // where the next byte goes
	got   int64 // bytes received
	limit int64 // bytes that may come
}

// receive writes a request's body to the disk at op.off. size -1 takes whatever
// comes (chunks), limit bytes at most.
func (c *conn) receive(ctx context.Context, op *operation, d *disk.Disk, req *request, size, limit int64) error {
	u := &upload{c: c, op: op, d: d, body: &req.body, off: op.off, limit: limit}
	if size >= spliceMin && c.plain != nil {
		if err := u.splice(ctx); err != nil {
			return err
		}
	}
	if !u.body.done() {
		rest := size
		if size >= 0 {
			rest -= u.got
		}
		write := func(p []byte) error { return u.write(ctx, p) }
		if err := c.move(ctx, rest, u.fill, write); err != nil {
			return err
		}
	}
	if !u.body.done() {
		return &partialError{size, u.got}
	}
	return nil
}

func (u *upload) fill(_ context.Context, p []byte) (int, error) {
	// Later pieces start at whole blocks, so that direct I/O needs no
	// read-modify-write at every seam.
	want := len(p) - int((u.op.off+u.got)%4096)
	n, err := io.ReadFull(u.body, p[:want])
	if u.got += int64(n); u.got > u.limit {
		return 0, rangeError("Requested range out of allowed range", u.op.off+u.limit)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // whether the body was whole is seen in the end
	}
	return n, err
}

func (u *upload) write(ctx context.Context, p []byte) error {
	start := time.Now()
	if err := growTo(ctx, u.d, u.off+int64(len(p))); err != nil {
		return err
	}
	if err := u.d.WriteAt(ctx, p, u.off, 0); err != nil {
		return err
	}
	u.c.pace.add(len(p), start)
	u.wrote(int64(len(p)))
	return nil
}

// growTo lets a file become as large as its ticket allows: the bytes of an image whose
// format is none of this server's business are put into a file that is still empty.
func growTo(ctx context.Context, d *disk.Disk, end int64) error {
	if end <= d.Size() {
		return nil
	}
	return d.Grow(ctx, end)
}

func (u *upload) wrote(n int64) {
	u.off += n
	u.op.done.Add(n)
}

// spliceMin is the smallest body that goes through a pipe.
const spliceMin = 64 << 10

// splice moves the body from a plain socket into a file's page cache as far as that
// can be: the rest, up to all of it, is left to be read and written.
func (u *upload) splice(ctx context.Context) error {
	if err := u.begin(ctx); err != nil || u.body.done() {
		return err
	}
	to, ok := u.d.FileRange(u.off, u.body.left, true)
	if !ok {
		return nil
	}
	defer to.Release()
	if to.Len < u.body.left || !splice.Regular(to.FD) {
		return nil
	}
	c := u.c
	if c.pipe == nil {
		if c.pipe = splice.NewPipe(); c.pipe == nil {
			return nil
		}
	}
	err := u.pass(ctx, &splice.Passage{Pipe: c.pipe, To: to, N: u.body.left})
	if err != nil {
		c.closePipe()
	}
	return err
}

// begin writes what was received together with the request's head.
func (u *upload) begin(ctx context.Context) error {
	if err := u.body.begin(); err != nil {
		return err
	}
	head := min(int64(u.c.reader.Buffered()), u.body.left)
	if head == 0 {
		return nil
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := io.ReadFull(u.body, (*buf)[:head])
	u.got += int64(n)
	if err != nil {
		return err
	}
	return u.write(ctx, (*buf)[:n])
}

// pass leaves the pipe empty if it returns nil. The body may then have ended early, or
// the file have refused: whoever reads on finds that out.
func (u *upload) pass(ctx context.Context, x *splice.Passage) error {
	for x.Put < x.N {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := u.pour(x)
		if err != nil {
			return err
		}
		before := x.Put
		err = x.Drain(!more)
		u.wrote(x.Put - before)
		if err != nil {
			return u.takeBack(ctx, x)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// pour moves what the client has sent into the pipe, until it holds enough for a write
// or is full. False: no more will come this way.
func (u *upload) pour(x *splice.Passage) (more bool, err error) {
	for x.Got < x.N {
		if err := u.c.io.beforeRead(); err != nil {
			return false, err
		}
		n, waited := int64(0), false
		rerr := u.c.plain.Read(func(sock uintptr) bool {
			n, err = x.Receive(int(sock))
			if err != unix.EAGAIN || x.Piped() >= splice.Step || waited && x.Piped() > 0 { // there is data, so there is no room
				return true
			}
			waited = true
			return false
		})
		u.got += n
		u.body.left -= n
		switch {
		case rerr != nil:
			return false, rerr
		case n > 0 || err == unix.EINTR:
		case err == unix.EAGAIN:
			return true, nil
		case err == nil || splice.Unsupported(err):
			return false, nil
		default:
			return false, fmt.Errorf("receive: %w", err)
		}
	}
	return true, nil
}

// takeBack writes what the file refused to take from the pipe, which names whatever is
// wrong with the file.
func (u *upload) takeBack(ctx context.Context, x *splice.Passage) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for left := x.Piped(); left > 0; {
		p := (*buf)[:min(left, bufferSize)]
		if err := x.TakeBack(p); err != nil {
			return err
		}
		if err := u.write(ctx, p); err != nil {
			return err
		}
		left -= int64(len(p))
	}
	return nil
}

func (c *conn) closePipe() {
	if c.pipe != nil {
		c.pipe.Close()
		c.pipe = nil
	}
}

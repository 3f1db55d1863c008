package diskcopy

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vmdisk/vmdisk/disk"
)

// Export writes all of src to w, in order, holes as zeros. Several readers work ahead of w,
// by QueueDepth requests at most. Whoever calls it ends a w that blocks when ctx is cancelled.
func Export(ctx context.Context, w io.Writer, src *disk.Disk, o Options) (Stats, error) {
	clk := startClock()
	o, err := o.complete(src)
	if err != nil {
		return Stats{}, err
	}
	x := &exporter{src: src, w: w, opt: o, size: src.Size()}
	x.total = Stats{Size: x.size, Strategy: o.Strategy, ZeroBy: "writes"}
	p := startProgress(o, "copy", x.size, &x.done, src)
	err = x.run(ctx)
	p.stop()
	clk.phase(&x.total, "copy")
	clk.stop(&x.total)
	return x.total, err
}

type exporter struct {
	src   *disk.Disk
	w     io.Writer
	opt   Options
	size  int64
	done  atomic.Int64
	total Stats
}

// part is a range of the source on its way to the stream.
type part struct {
	span
	buf  []byte // nil: zeros
	read chan error
}

func (x *exporter) run(ctx context.Context) error {
	depth := x.opt.QueueDepth
	mem, err := mapMemory(int64(depth) * x.opt.RequestSize)
	if err != nil {
		return err
	}
	defer unmapMemory(mem)
	// Each part takes a buffer from free before it is queued, and its writer gives it back.
	free, queue, order := make(chan []byte, depth), make(chan *part, depth), make(chan *part, depth)
	for i := range int64(depth) {
		free <- mem[i*x.opt.RequestSize : (i+1)*x.opt.RequestSize : (i+1)*x.opt.RequestSize]
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		defer close(order)
		return x.plan(ctx, free, queue, order)
	})
	for range depth {
		group.Go(func() error {
			for p := range queue {
				p.read <- x.src.ReadAt(ctx, p.buf, p.off)
			}
			return nil
		})
	}
	group.Go(func() error { return x.write(ctx, free, order) })
	return group.Wait()
}

// plan hands out the source's parts.
func (x *exporter) plan(ctx context.Context, free <-chan []byte, queue, order chan<- *part) error {
	walk := newWalker(x.src, 0, x.size, x.opt.RequestSize, max(x.src.Info().Min, 512))
	for {
		s, err := walk.next(ctx)
		if err != nil || s.n == 0 {
			return sourceErr(err)
		}
		p := &part{span: s}
		if !s.zero {
			p.read = make(chan error, 1)
			select {
			case buf := <-free:
				p.buf = buf[:s.n]
				queue <- p // never more than there are buffers
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case order <- p:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write takes the parts in their order.
func (x *exporter) write(ctx context.Context, free chan<- []byte, order <-chan *part) error {
	for p := range order {
		if p.buf == nil {
			if err := x.writeZeros(ctx, p.n); err != nil {
				return err
			}
			continue
		}
		if err := <-p.read; err != nil {
			return sourceErr(err)
		}
		x.total.Read.add(p.n)
		if err := x.put(ctx, p.buf); err != nil {
			return err
		}
		free <- p.buf[:x.opt.RequestSize]
	}
	return ctx.Err()
}

func (x *exporter) writeZeros(ctx context.Context, n int64) error {
	for n > 0 {
		p := zeroBlock[:min(n, int64(len(zeroBlock)))]
		if err := x.put(ctx, p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	return nil
}

func (x *exporter) put(ctx context.Context, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := x.w.Write(p); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // that is why it was ended
		}
		return targetErr(fmt.Errorf("the stream ends after %d of %d bytes: %w", x.done.Load(), x.size, err))
	}
	x.total.Write.add(int64(len(p)))
	x.done.Add(int64(len(p)))
	return nil
}

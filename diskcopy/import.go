package diskcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vmdisk/vmdisk/disk"
)

// growStep bounds how far a target grows ahead of a stream: each growth is synced.
const growStep = 1 << 30

// streamID is the identity of a source that cannot be resumed.
const streamID = "stream"

// Import writes all that r holds to the start of dst. A dst that is to grow gets the stream's
// size; another one has to be large enough, and keeps what it has beyond the stream's
// end. A stream cannot be read twice, so a journal only says whose the target is, and does
// not outlive an error. Whoever calls it ends an r that blocks when ctx is cancelled.
func Import(ctx context.Context, dst *disk.Disk, r io.Reader, grow bool, o Options) (Stats, error) {
	clk := startClock()
	o, err := o.complete(dst)
	if err != nil {
		return Stats{}, err
	}
	m := &importer{dst: dst, r: r, opt: o, grow: grow, room: dst.Size(), knownZero: dst.Info().KnownZero || o.TargetIsZero}
	m.total.Strategy, m.total.ZeroBy = o.Strategy, "none needed"
	defer func() { m.journal.close() }()
	if err := m.openJournal(); err != nil {
		return m.total, err
	}
	p := startProgress(o, "copy", 0, &m.done, dst)
	err = m.run(ctx)
	p.end()
	if p.total = m.total.Size; p.report != nil && err == nil { // now it is known
		p.report(p.now())
	}
	clk.phase(&m.total, "copy")
	if err == nil {
		err = m.complete(ctx)
	}
	clk.phase(&m.total, "flush")
	clk.stop(&m.total)
	return m.total, errors.Join(err, m.journal.remove())
}

type importer struct {
	dst       *disk.Disk
	r         io.Reader
	opt       Options
	grow      bool
	room      int64 // the target's size so far
	knownZero bool
	journal   *journal
	done      atomic.Int64
	mu        sync.Mutex
	total     Stats
}

func (m *importer) openJournal() (err error) {
	if m.opt.Journal == "" {
		return nil
	}
	if m.journal, err = lockJournal(m.opt.Journal); err == nil {
		head := journalHead{Version: journalVersion, Source: identity{ID: streamID}, Target: identity{ID: m.dst.Info().ID}, Unnamed: m.opt.Publish != nil}
		_, err = m.journal.takeOver(head, false, nil)
	}
	if err != nil {
		return fmt.Errorf("journal %s: %w", m.opt.Journal, err)
	}
	return nil
}

func (m *importer) run(ctx context.Context) error {
	depth := m.opt.QueueDepth
	mem, err := mapMemory(int64(depth) * m.opt.RequestSize)
	if err != nil {
		return err
	}
	defer unmapMemory(mem)
	free, full := make(chan []byte, depth), make(chan part, depth)
	for i := range int64(depth) {
		free <- mem[i*m.opt.RequestSize : (i+1)*m.opt.RequestSize : (i+1)*m.opt.RequestSize]
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(full)
		return m.read(ctx, free, full)
	})
	for range depth {
		group.Go(func() error {
			for p := range full {
				if err := m.store(ctx, p); err != nil {
					return err
				}
				free <- p.buf[:m.opt.RequestSize]
			}
			return nil
		})
	}
	return group.Wait()
}

// read takes the stream apart.
func (m *importer) read(ctx context.Context, free <-chan []byte, full chan<- part) error {
	for off := int64(0); ; {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := io.ReadFull(m.r, buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return sourceErr(fmt.Errorf("read the stream at offset %d: %w", off+int64(n), err))
		}
		if n > 0 {
			if err := m.makeRoom(ctx, off+int64(n)); err != nil {
				return targetErr(err)
			}
			full <- part{span: span{off: off, n: int64(n)}, buf: buf[:n]}
		}
		if off += int64(n); err != nil {
			m.total.Size = off
			return nil
		}
	}
}

// makeRoom lets the target grow to hold end bytes.
func (m *importer) makeRoom(ctx context.Context, end int64) error {
	switch {
	case end <= m.room:
		return nil
	case !m.grow:
		return fmt.Errorf("%s has %d bytes, and the stream is longer: make it larger", m.dst, m.room)
	}
	to := end + min(end, growStep)
	if err := m.dst.Resize(ctx, to); err != nil {
		return err
	}
	m.room = to
	return nil
}

// store writes a part of the stream, runs of zeros by the cheaper means.
func (m *importer) store(ctx context.Context, p part) error {
	granule := max(m.opt.SparseSize, m.dst.Info().Min)
	if m.opt.SparseSize < 0 || m.opt.Strategy == Write {
		granule = p.n
	}
	for off, buf := p.off, p.buf; len(buf) > 0; {
		n, zero := dataRun(buf, off, granule, granule)
		if m.opt.SparseSize < 0 || m.opt.Strategy == Write {
			n, zero = int64(len(buf)), false
		}
		if err := m.storeRun(ctx, buf[:n], off, zero); err != nil {
			return targetErr(err)
		}
		off, buf = off+n, buf[n:]
	}
	m.done.Add(p.n)
	return nil
}

func (m *importer) storeRun(ctx context.Context, p []byte, off int64, zero bool) (err error) {
	n, count := int64(len(p)), &m.total.Write
	switch {
	case !zero:
		err = m.dst.WriteAt(ctx, p, off, 0)
	case m.knownZero && !m.opt.Allocate:
		count = &m.total.Skip
	default:
		flags := disk.MayTrim
		if m.opt.Allocate {
			flags = 0
		}
		count, err = &m.total.Zero, m.dst.Zero(ctx, off, n, flags)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	count.add(n)
	return err
}

// complete gives a target that grew its size, flushes and publishes it.
func (m *importer) complete(ctx context.Context) error {
	m.total.Read = Count{Ops: 1, Bytes: m.total.Size}
	switch {
	case m.total.Zero.Ops > 0:
		m.total.ZeroBy = "each hole"
	case m.total.Skip.Ops > 0:
		m.total.ZeroBy = "target was zero"
	}
	if m.grow && m.room != m.total.Size {
		if err := m.dst.Resize(ctx, m.total.Size); err != nil {
			return targetErr(err)
		}
	}
	if !m.opt.NoFlush {
		if err := m.dst.Flush(ctx); err != nil {
			return targetErr(err)
		}
	}
	if m.opt.Publish != nil {
		return m.opt.Publish()
	}
	return nil
}

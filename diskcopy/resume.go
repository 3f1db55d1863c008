package diskcopy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// identity tells whether a disk is still the same one. Only what is trusted has to
// have the same times and samples; what is compared has not.
type identity struct {
	Size       int64  `json:"size"`
	ID         string `json:"id,omitempty"`
	ModTime    int64  `json:"mtime_ns,omitempty"` // of a regular file
	ChangeTime int64  `json:"ctime_ns,omitempty"` // nobody can set it back
	Samples    string `json:"samples,omitempty"`  // digest of parts of the content; sources only
}

const (
	samples    = 16
	sampleSize = 4096
)

// openJournal opens or creates the journal and moves the start of a resumed copy.
func (e *engine) openJournal() error {
	if e.opt.Journal == "" {
		return nil
	}
	head := journalHead{Version: journalVersion, Unnamed: e.opt.Publish != nil}
	var err error
	if head.Source, err = identify(e, e.src, true); err != nil {
		return sourceErr(err)
	}
	if head.Target, err = identify(e, e.dst, false); err != nil {
		return targetErr(err)
	}
	if e.journal, err = lockJournal(e.opt.Journal); err != nil {
		return fmt.Errorf("journal %s: %w", e.opt.Journal, err)
	}
	j := e.journal
	state, err := j.takeOver(head, e.opt.Resume, func(old journalHead) error { return old.matches(head, e.opt.Trust) })
	if err != nil {
		return fmt.Errorf("journal %s: %w", e.opt.Journal, err)
	}
	j.done, j.issued, j.syncIssued = state.done, state.issued, e.opt.TargetIsZero
	j.resumed, j.sentTo = state.done.Upto, state.issued.Upto
	e.startAt(j.resumed)
	if e.opt.Trust && j.resumed > 0 {
		e.total.TrustedBytes = j.resumed
		return e.checkSamples(j.resumed)
	}
	return nil
}

// identify describes d; with samples for a source.
func identify(e *engine, d *disk.Disk, source bool) (identity, error) {
	in := d.Info()
	id := identity{Size: in.Size, ID: in.ID}
	if len(id.ID) > maxID {
		h := sha256.Sum256([]byte(id.ID))
		id.ID = hex.EncodeToString(h[:])
	}
	if !source || in.Size == 0 {
		return id, nil
	}
	if r, ok := d.FileRange(0, 1, false); ok {
		var st unix.Stat_t
		if unix.Fstat(r.FD, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			id.ModTime, id.ChangeTime = st.Mtim.Nano(), st.Ctim.Nano()
		}
		r.Release()
	}
	h := sha256.New()
	err := e.sample(in.Size, func(off, n int64) error {
		p := e.workers[0].buf[:n]
		if err := d.ReadAt(e.io, p, off); err != nil {
			return err
		}
		h.Write(p)
		return nil
	})
	id.Samples = hex.EncodeToString(h.Sum(nil))
	return id, err
}

// matches refuses to go on with another copy's journal. What is going to be compared may have
// changed; only with trust its stamps have to be those of the beginning.
func (h *journalHead) matches(now journalHead, trust bool) error {
	switch {
	case h.Source.Size != now.Source.Size || h.Source.ID != now.Source.ID:
		return errors.New("the source is not the one the copy began with: copy without --resume")
	case h.Target.Size != now.Target.Size || h.Target.ID != now.Target.ID:
		return errors.New("the target is not the one the copy began with: copy without --resume")
	case trust && h.Source != now.Source:
		return errors.New("the source has changed since the copy began, so what is done cannot be trusted: --resume compares it")
	}
	return nil
}

// sample visits small ranges spread over [0, size), the first and the last among them.
func (e *engine) sample(size int64, visit func(off, n int64) error) error {
	n := min(sampleSize, size, int64(len(e.workers[0].buf)))
	for i := range int64(samples) {
		if err := visit((size-n)/(samples-1)*i, n); err != nil {
			return err
		}
	}
	return visit(size-n, n)
}

// checkSamples is all that is looked at in trust: a target that was made anew would
// stay empty below done.
func (e *engine) checkSamples(done int64) error {
	return e.sample(done, func(off, n int64) error {
		p, q := e.workers[0].buf[:n], make([]byte, n)
		if err := e.src.ReadAt(e.io, p, off); err != nil {
			return sourceErr(err)
		}
		if err := e.dst.ReadAt(e.io, q, off); err != nil {
			return targetErr(err)
		}
		if !bytes.Equal(p, q) {
			return targetErr(fmt.Errorf("%s does not hold what journal %s says it does (it differs near offset %d): --resume compares it", e.dst, e.opt.Journal, off))
		}
		return nil
	})
}

// check compares what earlier runs wrote with the source, and writes again what differs. A
// source, or a target, may have changed since without any sign of it: an NBD server
// has no time stamp, and a file's can be set back.
func (e *engine) check(o Options) error {
	end := e.journal.resumed
	if end == 0 || o.Trust {
		return nil
	}
	c := newComparer(e.ctx, e.src, e.dst, end, o.RequestSize)
	p := startProgress(o, "check", end, &c.done, e.src, e.dst)
	err := c.run(len(e.workers), 2*o.RequestSize, func(buf []byte) error { return e.checkPart(c, buf) })
	p.stop()
	e.total.CheckedBytes = c.done.Load()
	var side *CopyError
	if errors.As(err, &side) && side.Side == Target {
		return fmt.Errorf("%w; what is done cannot be compared: --resume=trust goes on without", err)
	}
	return err
}

// checkPart is one worker of check.
func (e *engine) checkPart(c *comparer, buf []byte) error {
	for {
		t, err := c.next()
		if err != nil || t.n == 0 {
			return err
		}
		at, err := c.compare(t, buf)
		if err != nil {
			return err
		}
		if at < t.n {
			if err := e.mend(t, buf[:t.n]); err != nil {
				return targetErr(err)
			}
			e.differed.Add(t.n)
		}
		c.done.Add(t.n)
	}
}

// mend makes a part of the target what p, read from the source, says.
func (e *engine) mend(t comparison, p []byte) error {
	if !t.zero[0] {
		return e.dst.WriteAt(e.io, p, t.off, 0)
	}
	flags := disk.MayTrim
	if e.opt.Allocate {
		flags = 0
	}
	return e.dst.Zero(e.io, t.off, t.n, flags)
}

// checkpoint flushes the target and records the frontier from before the flush;
// last, when no more tasks follow.
func (e *engine) checkpoint(last bool) error {
	sent := int64(0)
	if last {
		e.mu.Lock()
		sent = max(e.sent, e.journal.sentTo)
		e.mu.Unlock()
	}
	f := e.frontier()
	if f <= e.journal.resumed && !last {
		return nil
	}
	if err := e.dst.Flush(e.io); err != nil {
		return targetErr(err)
	}
	if err := e.journal.advance(f, sent); err != nil {
		return fmt.Errorf("journal %s: %w", e.journal.path, err)
	}
	return nil
}

// startCheckpoints makes checkpoints from a goroutine until the returned function is called.
func (e *engine) startCheckpoints() (stop func()) {
	if e.journal == nil {
		return func() {}
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(e.opt.Checkpoint)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if err := e.checkpoint(false); err != nil {
				e.mu.Lock()
				e.setErr(err)
				e.mu.Unlock()
				return
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

// interrupted ends a copy that failed: what the target acknowledged is flushed, and
// the journal says how far that is.
func (e *engine) interrupted(err error) error {
	if e.journal == nil {
		_ = e.dst.Flush(e.io) // err tells more
		return err
	}
	_ = e.checkpoint(true) // without it the journal tells less, which is safe
	if e.journal.done.Upto == 0 && e.opt.DiscardEmpty {
		return errors.Join(err, e.journal.remove())
	}
	return &InterruptedError{Offset: e.journal.done.Upto, Size: e.size, Journal: e.journal.path, Err: err}
}

package diskcopy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// The journal is a text file of JSON lines. The first identifies the copy; each
// other one holds "done" (all below is on the target's stable storage; written
// after a flush of the target) or "issued" (nothing above was sent yet; written
// before the first request above the last such mark, and not synced, since it
// only tells how much may be sent again).
type journalHead struct {
	Version int      `json:"vmdisk_journal"`
	Source  identity `json:"source"`
	Target  identity `json:"target"`
}

type journalLine struct {
	Done   int64      `json:"done,omitempty"`
	Zeroed [][2]int64 `json:"zeroed,omitempty"` // offset and length of what else reads as zeros
	Issued int64      `json:"issued,omitempty"`
	Sent   int64      `json:"sent,omitempty"` // with done: exactly this far was sent, whatever issued says
}

// identity tells whether a disk is still the same one.
type identity struct {
	Size    int64  `json:"size"`
	ID      string `json:"id,omitempty"`
	ModTime int64  `json:"mtime_ns,omitempty"` // of a regular file
	Samples string `json:"samples,omitempty"`  // digest of parts of the content; sources only
}

const (
	journalVersion = 1
	issuedStep     = 64 << 20
	maxJournal     = 64 << 20
	samples        = 16
	sampleSize     = 4096
)

// journal records the progress of one copy. All methods work on nil: no journal.
type journal struct {
	f    *os.File
	path string
	// resumed is where the copy went on and sentTo what an earlier run may have sent.
	resumed, sentTo int64
	resent          atomic.Int64

	mu   sync.Mutex
	mark int64 // last "issued"
	safe int64 // last "done"
	err  error // of an unsynced write
}

// openJournal opens or creates the journal and moves the start of a resumed copy.
func (e *engine) openJournal() error {
	if e.opt.Journal == "" {
		return nil
	}
	head := journalHead{Version: journalVersion}
	var err error
	if head.Source, err = identify(e, e.src, true); err != nil {
		return sourceErr(err)
	}
	if head.Target, err = identify(e, e.dst, false); err != nil {
		return targetErr(err)
	}
	j, state, err := openJournalFile(e.opt.Journal, head, e.opt.Resume)
	if err != nil {
		return fmt.Errorf("journal %s: %w", e.opt.Journal, err)
	}
	e.journal = j
	if state.Done > 0 {
		if err := e.checkTarget(state.Done); err != nil {
			return err
		}
	}
	j.resumed, j.safe, j.sentTo, j.mark = state.Done, state.Done, max(state.Issued, state.Done), state.Issued
	for _, z := range state.Zeroed {
		e.plan.known = append(e.plan.known, span{off: z[0], n: z[1], zero: true})
	}
	e.startAt(state.Done)
	return nil
}

// identify describes d; with samples for a source.
func identify(e *engine, d *disk.Disk, source bool) (identity, error) {
	in := d.Info()
	id := identity{Size: in.Size, ID: in.ID}
	if !source || in.Size == 0 {
		return id, nil
	}
	if r, ok := d.FileRange(0, 1, false); ok {
		var st unix.Stat_t
		if unix.Fstat(r.FD, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			id.ModTime = st.Mtim.Nano()
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

// checkTarget makes sure that the target holds what the journal says, as far as
// samples can tell: a target that was made anew would stay empty below done.
func (e *engine) checkTarget(done int64) error {
	return e.sample(done, func(off, n int64) error {
		p, q := e.workers[0].buf[:n], make([]byte, n)
		if err := e.src.ReadAt(e.io, p, off); err != nil {
			return sourceErr(err)
		}
		if err := e.dst.ReadAt(e.io, q, off); err != nil {
			return targetErr(err)
		}
		if !bytes.Equal(p, q) {
			return targetErr(fmt.Errorf("%s does not hold what journal %s says it does (it differs near offset %d): copy without --resume", e.dst, e.opt.Journal, off))
		}
		return nil
	})
}

// openJournalFile takes over a journal (resume) or begins one, and locks it.
func openJournalFile(path string, head journalHead, resume bool) (*journal, journalLine, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, journalLine{}, err
	}
	j := &journal{f: f, path: path}
	state, err := j.takeOver(head, resume)
	if err != nil {
		j.close()
		return nil, state, err
	}
	return j, state, nil
}

func (j *journal) takeOver(head journalHead, resume bool) (journalLine, error) {
	var state journalLine
	if err := unix.Flock(int(j.f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return state, errors.New("in use by another copy")
	}
	text, err := io.ReadAll(io.LimitReader(j.f, maxJournal))
	if err != nil {
		return state, err
	}
	old, state, valid, err := parseJournal(text)
	if err != nil {
		return state, err
	}
	if resume && valid > 0 {
		if err := old.matches(head); err != nil {
			return state, err
		}
	} else {
		state, valid = journalLine{}, 0
	}
	if err := j.f.Truncate(valid); err != nil {
		return state, err
	}
	if _, err := j.f.Seek(valid, io.SeekStart); err != nil || valid > 0 {
		return state, err
	}
	return state, j.append(head, true)
}

// parseJournal reads what is whole: a line that was torn by a crash ends the
// journal, and valid is the length before it. A file that is no journal is an error, so
// that no other file is ever overwritten.
func parseJournal(text []byte) (head journalHead, state journalLine, valid int64, err error) {
	first, rest, whole := bytes.Cut(text, []byte("\n"))
	const magic = `{"vmdisk_journal":`
	if !bytes.HasPrefix(first, []byte(magic)) && !bytes.HasPrefix([]byte(magic), first) {
		return head, state, 0, errors.New("exists and is not a vmdisk journal: name another file or remove it")
	}
	if !whole || json.Unmarshal(first, &head) != nil {
		return journalHead{}, state, 0, nil
	}
	if head.Version != journalVersion {
		return head, state, 0, fmt.Errorf("has version %d, this program writes %d: copy without --resume", head.Version, journalVersion)
	}
	valid = int64(len(first)) + 1
	for {
		text, more, whole := bytes.Cut(rest, []byte("\n"))
		var l journalLine
		if !whole || json.Unmarshal(text, &l) != nil || !state.apply(l, head.Source.Size) {
			return head, state, valid, nil
		}
		valid += int64(len(text)) + 1
		rest = more
	}
}

// apply takes over a line, or reports false if it makes no sense.
func (s *journalLine) apply(l journalLine, size int64) bool {
	if l.Done < 0 || l.Done > size || l.Issued < 0 || l.Sent < 0 {
		return false
	}
	for _, z := range l.Zeroed {
		if z[0] < 0 || z[1] < 0 || z[0] > size || z[1] > size-z[0] {
			return false
		}
	}
	s.Done, s.Issued = max(s.Done, l.Done), max(s.Issued, min(l.Issued, size))
	if l.Sent > 0 {
		s.Issued = min(l.Sent, size)
	}
	if l.Zeroed != nil {
		s.Zeroed = l.Zeroed
	}
	return true
}

func (h *journalHead) matches(now journalHead) error {
	switch {
	case h.Source != now.Source:
		return errors.New("the source is not the one the copy began with, or it has changed since: copy without --resume")
	case h.Target != now.Target:
		return errors.New("the target is not the one the copy began with: copy without --resume")
	}
	return nil
}

// append writes one line.
func (j *journal) append(line any, sync bool) error {
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err = j.f.Write(append(text, '\n')); err == nil && sync {
		err = j.f.Sync()
	}
	return err
}

// issued records that requests up to end are about to be sent.
func (j *journal) issued(end int64) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if end > j.mark {
		j.mark = end + issuedStep
		if err := j.append(journalLine{Issued: j.mark}, false); err != nil && j.err == nil {
			j.err = err
		}
	}
}

// wrote counts what an earlier run may already have sent.
func (j *journal) wrote(off, n int64) {
	if j != nil && off < j.sentTo {
		j.resent.Add(min(n, j.sentTo-off))
	}
}

// advance records that all below off is safe; the target has been flushed.
// sent, if not 0, is where a copy that ends here has come to.
func (j *journal) advance(off int64, zeroed []span, sent int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil || off <= j.safe && sent == 0 {
		return j.err
	}
	l := journalLine{Done: off, Sent: sent}
	for _, z := range zeroed {
		l.Zeroed = append(l.Zeroed, [2]int64{z.off, z.n})
	}
	if err := j.append(l, true); err != nil {
		return err
	}
	j.safe = off
	return nil
}

func (j *journal) close() {
	if j != nil && j.f != nil {
		_ = j.f.Close() // every line that matters is synced
		j.f = nil
	}
}

// remove ends a journal whose copy is complete.
func (j *journal) remove() error {
	if j == nil {
		return nil
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the copy is complete, but its journal remains: %w", err)
	}
	return nil
}

// checkpoint flushes the target and records the frontier from before the flush;
// last, when no more tasks follow.
func (e *engine) checkpoint(last bool) error {
	e.mu.Lock()
	zeroed, sent := append([]span(nil), e.plan.known...), int64(0)
	if last {
		sent = max(e.sent, e.journal.sentTo)
	}
	e.mu.Unlock()
	f := e.frontier()
	if f <= e.journal.resumed && !last {
		return nil
	}
	if err := e.dst.Flush(e.io); err != nil {
		return targetErr(err)
	}
	if err := e.journal.advance(f, zeroed, sent); err != nil {
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
	return &InterruptedError{Offset: e.journal.safe, Size: e.size, Journal: e.journal.path, Err: err}
}

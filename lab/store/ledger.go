package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// kind of a thing that has to be undone.
type kind string

const (
	kindPath      kind = "path"      // Path: a file, or a folder with all in it
	kindLoop      kind = "loop"      // Path: the file behind a loop device
	kindMount     kind = "mount"     // Path: where it is mounted
	kindProcess   kind = "process"   // PID, Started
	kindVG        kind = "vg"        // Name of the LVM group; Path: the file behind its loop device
	kindPool      kind = "zpool"     // Name of the ZFS pool; Path: its file
	kindScheduler kind = "scheduler" // Path in sysfs, Name: the one to restore
	kindDevice    kind = "device"    // Path: a user's device with our data, to be blanked
	kindTarget    kind = "lio"       // Name of the backstore and WWPN: a vhost-scsi target
)

// entry is one thing that was made, or was about to be.
type entry struct {
	ID   int    `json:"id"`
	Kind kind   `json:"kind"`
	Path string `json:"path,omitempty"`
	Name string `json:"name,omitempty"`
	PID  int    `json:"pid,omitempty"`
	// Started is the process's start in clock ticks, against reused ids.
	Started uint64 `json:"started,omitempty"`
}

func (e entry) String() string {
	switch e.Kind {
	case kindProcess:
		return fmt.Sprintf("process %d (%s)", e.PID, e.Name)
	case kindVG, kindPool, kindTarget:
		return fmt.Sprintf("%s %s", e.Kind, e.Name)
	}
	return fmt.Sprintf("%s %s", e.Kind, e.Path)
}

// ledger is the list of what has to be undone, in a file that is written before
// the thing is made. Undoing what was never made does nothing. It need not outlive
// the host: a boot clears all but files, and those are named by what lies in Dir.
type ledger struct {
	path string

	mu      sync.Mutex
	next    int
	entries []entry
	added   func() // for tests: an entry was written, its thing is not made yet
}

// openLedger reads what another process left, if anything.
func openLedger(path string) (*ledger, error) {
	l := &ledger{path: path}
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &l.entries); err != nil {
		return nil, fmt.Errorf("%s: %w: see in it what a killed run left, undo that by hand and remove the file", path, err)
	}
	for i, e := range l.entries {
		// An entry is struck by its number: of two with the same one, a thing would stay that nobody knows of.
		if e.ID <= l.next || e.ID == math.MaxInt {
			return nil, fmt.Errorf("%s: entry %d has the number %d, out of order: see in it what a killed run left, undo that by hand and remove the file", path, i+1, e.ID)
		}
		l.next = e.ID
	}
	return l, nil
}

// add writes an entry down; only then may its thing be made.
func (l *ledger) add(e entry) (entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	e.ID = l.next
	l.entries = append(l.entries, e)
	if err := l.write(); err != nil {
		l.entries = l.entries[:len(l.entries)-1]
		return entry{}, fmt.Errorf("write down %s: %w", e, err)
	}
	if l.added != nil {
		l.added()
	}
	return e, nil
}

// drop strikes an entry whose thing is gone. That this could not be written, on a
// full disk for one, is no harm: undoing it again does nothing.
func (l *ledger) drop(id int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = slices.DeleteFunc(l.entries, func(e entry) bool { return e.ID == id })
	_ = l.write()
}

func (l *ledger) write() error {
	text, err := json.MarshalIndent(l.entries, "", "  ")
	if err != nil {
		return err
	}
	part := l.path + ".new"
	if err := writeNew(part, append(text, '\n')); err != nil {
		return errors.Join(err, removeFile(part))
	}
	return os.Rename(part, l.path)
}

func (l *ledger) remove() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) > 0 {
		return nil // it is still needed
	}
	return errors.Join(removeFile(l.path), removeFile(l.path+".new"))
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// scope is things that are undone together, the last made first. It is used by
// one goroutine at a time.
type scope struct {
	s       *Store
	made    []entry
	running map[int]*process // by entry
}

func (s *Store) newScope() *scope { return &scope{s: s, running: map[int]*process{}} }

// record writes an entry down that close will undo.
func (c *scope) record(e entry) error {
	e, err := c.s.ledger.add(e)
	if err == nil {
		c.made = append(c.made, e)
	}
	return err
}

// start runs a server until the scope is closed. Its entry comes after it: the
// kernel ends it with us, so there is no time in which it could be left behind.
func (c *scope) start(name string, cmd command) (*process, error) {
	p, err := startProcess(name, cmd)
	if err != nil {
		return nil, err
	}
	ticks, err := startTicks(p.PID())
	if err == nil {
		err = c.record(entry{Kind: kindProcess, Name: cmd.name, PID: p.PID(), Started: ticks})
	}
	if err != nil {
		p.told = true
		stopErr := p.stop()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) { // it ended before or while we looked at it
			err = fmt.Errorf("%s (%s): %w", name, cmd.name, p.failure())
		}
		return nil, errors.Join(err, stopErr)
	}
	c.running[c.made[len(c.made)-1].ID] = p
	return p, nil
}

// folder makes a folder that goes with all that is in it.
func (c *scope) folder(path string) error {
	if err := c.record(entry{Kind: kindPath, Path: path}); err != nil {
		return err
	}
	return os.Mkdir(path, 0o700)
}

// close undoes everything and goes on after errors. What could not be undone stays
// recorded. It ignores that ctx has ended: cleaning up is what follows then.
func (c *scope) close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	var left []entry
	for _, e := range slices.Backward(c.made) {
		if err := c.undo(ctx, e); err != nil {
			errs = append(errs, err)
			if p := c.running[e.ID]; p == nil {
				left = append(left, e)
				continue
			}
		}
		c.s.ledger.drop(e.ID)
	}
	slices.Reverse(left)
	c.made = left
	clear(c.running)
	return errors.Join(errs...)
}

func (c *scope) undo(ctx context.Context, e entry) error {
	if p := c.running[e.ID]; p != nil {
		return p.stop() // an error is that it ended before, and it is gone in any case
	}
	if err := c.s.undo(ctx, e); err != nil {
		return fmt.Errorf("undo %s: %w", e, err)
	}
	return nil
}

// recover undoes what a killed run left.
func (s *Store) recover(ctx context.Context) error {
	left := slices.Clone(s.ledger.entries)
	if len(left) > 0 {
		s.logf("%s: a run that was killed left %d things; undoing them", s.o.Dir, len(left))
	}
	c := s.newScope()
	c.made = left
	return c.close(ctx)
}

// below reports whether path is dir or lies in it.
func below(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// target is where a copy goes.
type target struct {
	disk *disk.Disk
	// final is the path that the complete file gets; empty if the target was
	// there before.
	final, partial, journal string
	// mode, if known, is the source's: the file is not for more people than that.
	mode *fs.FileMode
	// id is the partial file's identity, as its name may become another file's.
	id string
	// resumed: the partial file was left by an earlier copy.
	resumed bool
	// named: the user named the journal, and keeps it in any case.
	named bool
	// present: a file that has its name already, which --resume only looks at.
	present bool
	// unnamed is why a complete file did not get its name.
	unnamed error
}

// toTarget opens or makes the target, copies, and leaves the target complete, or
// resumable, or gone if it was new. The target stays open, and by that locked, until it
// has its name or is gone: who waited for the lock finds that out. Without src it is a stream
// that is copied.
func (f *copyFlags) toTarget(c *cobra.Command, src *disk.Disk, from, to string) (text string, stats diskcopy.Stats, err error) {
	t, err := f.openTarget(c, from, to, src)
	if err != nil {
		return "", stats, fmt.Errorf("target: %w", err)
	}
	p := newProgress(c, f.progress.value)
	f.options.Progress = p.report
	f.options.DiscardEmpty = !t.named
	if t.final != "" {
		f.options.Publish = t.publish
	}
	switch {
	case t.present:
		text, stats, err = f.verifyPresent(c.Context(), t, src)
	case src == nil:
		stats, err = diskcopy.Import(c.Context(), t.disk, f.streams.in, t.final != "", f.options)
	default:
		stats, err = diskcopy.Copy(c.Context(), t.disk, src, f.options)
	}
	if text == "" {
		text = copySummary(stats)
	}
	p.end()
	begun := len(stats.Phases) > 0 // else the copy was refused before it touched anything
	err = errors.Join(t.end(err, begun), t.disk.Close())
	if f.stats != "" && err != nil {
		err = errors.Join(err, writeStats(f.stats, stats))
	}
	return text, stats, err
}

func (f *copyFlags) openTarget(c *cobra.Command, from, to string, source *disk.Disk) (*target, error) {
	u, err := diskurl.Parse(to)
	if err != nil {
		return nil, err
	}
	src, size := diskurl.URL{}, int64(0) // of a stream nothing is known
	if source != nil {
		size = source.Size()
		if src, err = diskurl.Parse(from); err != nil {
			return nil, err
		}
	}
	if diskurl.Same(src, u) {
		return nil, fmt.Errorf("%s is the source itself; choose another target", to)
	}
	t := &target{named: f.options.Journal != "", mode: modeOf(src)}
	switch {
	case diskurl.Creatable(u):
		return f.openPartial(c, t, u, size)
	case u.Local() && isRegular(u.Path()):
		if source != nil {
			f.setJournal(u)
		}
		return f.openExisting(c, t, u)
	case f.options.Resume && !t.named:
		f.options.Journal = defaultJournal(src, u)
	}
	t.journal = f.options.Journal
	if err := f.sayWhereFrom(c); err != nil {
		return nil, err
	}
	t.disk, err = diskurl.Open(c.Context(), u.String(), f.dst)
	return t, err
}

// modeOf is who may do what with a local source; nil for others.
func modeOf(u diskurl.URL) *fs.FileMode {
	if !u.Local() {
		return nil
	}
	st, err := os.Stat(u.Path())
	if err != nil {
		return nil
	}
	mode := st.Mode().Perm()
	return &mode
}

// setJournal gives a copy to a local file its journal. Without the flush at the
// end nothing would be worth recording; but a stream's only tells what a killed copy left.
func (f *copyFlags) setJournal(u diskurl.URL) {
	if f.options.Journal == "" && (!f.options.NoFlush || f.options.Resume || f.streams.in != nil) {
		f.options.Journal = u.Path() + ".journal"
	}
}

func isRegular(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// openPartial opens the file that will take the target's name: what an earlier copy left, or a new one.
func (f *copyFlags) openPartial(c *cobra.Command, t *target, u diskurl.URL, size int64) (*target, error) {
	if _, err := os.Lstat(u.Path()); err == nil {
		return nil, fmt.Errorf("%s is a symbolic link to what does not exist; name the file that you mean", u.Path())
	}
	t.final, t.partial = u.Path(), u.Path()+".partial"
	f.setJournal(u)
	t.journal = f.options.Journal
	left, err := f.readJournal()
	if err != nil {
		return nil, err
	}
	u = u.At(t.partial)
	o := f.dst
	if o.Format == "" && u.Formats == "" {
		o.Format = diskurl.FormatRaw // it is ours, whatever it begins like
	}
	t.resumed = f.options.Resume && left != nil && left.Target != "" && isRegular(t.partial)
	f.options.Resume = t.resumed
	if !t.resumed {
		if err := f.makePartial(c, t, u, size, left); err != nil {
			return nil, err
		}
	}
	if err := t.lock(c.Context(), u, o); err != nil {
		return nil, err
	}
	if !diskurl.Creatable(u.At(t.final)) {
		return nil, errors.Join(errMeanwhile, t.disk.Close())
	}
	if err := t.narrow(0o600); err != nil {
		return nil, errors.Join(err, t.disk.Close())
	}
	return t, nil
}

var errMeanwhile = errors.New("another copy to it has begun or ended meanwhile; try again")

// lock opens the partial file at u, which keeps other copies out, and makes sure that it is
// still that: the copy that had the lock before may have given it its name, or replaced it.
func (t *target) lock(ctx context.Context, u diskurl.URL, o diskurl.Options) error {
	before, err := diskurl.Identity(t.partial)
	if err == nil {
		t.disk, err = openUnlocked(ctx, u.String(), o)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errMeanwhile
	case err != nil:
		return err
	}
	if now, err := diskurl.Identity(t.partial); err != nil || now != before {
		return errors.Join(errMeanwhile, t.disk.Close())
	}
	t.id = before
	return nil
}

// written makes sure that the partial file's name is still that of the file that was written: in a folder
// that others may write to it can be moved, and another file take the name.
func (t *target) written() error {
	if now, err := diskurl.Identity(t.partial); err == nil && now == t.id {
		return nil
	}
	return fmt.Errorf("target: %s is no longer the file that was written: somebody moved, removed or replaced it", t.partial)
}

// readJournal looks at what an earlier copy left; nil without a journal.
func (f *copyFlags) readJournal() (*diskcopy.JournalInfo, error) {
	if f.options.Journal == "" {
		return nil, nil //nolint:nilnil // no journal, no error
	}
	left, err := diskcopy.ReadJournal(f.options.Journal)
	if err != nil && !f.options.Resume && diskcopy.IsOldJournal(err) {
		return &diskcopy.JournalInfo{}, nil
	}
	return left, err
}

// makePartial makes the file that will take the target's name, in place of what
// an earlier copy may have left. A copy that was killed in its first moments leaves a file without a
// journal: it has the source's size, or none yet.
func (f *copyFlags) makePartial(c *cobra.Command, t *target, u diskurl.URL, size int64, left *diskcopy.JournalInfo) error {
	st, err := os.Lstat(t.partial)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !st.Mode().IsRegular(), left == nil && st.Size() != size && st.Size() != 0:
		return fmt.Errorf("%s exists, and neither a journal nor its size says that a copy left it; remove it, or choose another target", t.partial)
	default:
		f.sayAnew(c, t, left)
		if err := t.removeLeft(c.Context(), left); err != nil {
			return err
		}
	}
	o := diskurl.CreateOptions{Size: size, Format: f.dst.Format, FormatFlag: "-O"}
	if f.options.Allocate {
		o.Preallocation = "falloc"
	}
	if t.mode != nil {
		o.Mode = *t.mode | 0o600
	}
	err = diskurl.Create(c.Context(), u.String(), o)
	if errors.Is(err, fs.ErrExist) {
		return errMeanwhile
	}
	return err
}

// sayAnew tells that what an earlier copy did is given up, and how not to.
func (f *copyFlags) sayAnew(c *cobra.Command, t *target, left *diskcopy.JournalInfo) {
	switch {
	case left != nil && left.Done > 0 && f.resume.value == resumeOff:
		c.PrintErrf("vmdisk: copy: starting anew, though %d of %d bytes of a stopped copy are in %s; --resume goes on with them\n", left.Done, left.Size, t.partial)
	default:
		c.PrintErrf("vmdisk: copy: starting anew: a copy that was stopped left %s, but nothing in it is known to be safe\n", t.partial)
	}
}

// removeLeft removes what an earlier copy left, unless a copy still writes to it.
func (t *target) removeLeft(ctx context.Context, left *diskcopy.JournalInfo) error {
	if err := t.lock(ctx, diskurl.File(t.partial), diskurl.Options{Format: diskurl.FormatRaw}); err != nil {
		return err
	}
	var err error
	// The target may be an image in the file, whose identity has the format before the file's.
	if id := t.disk.Info().ID; left != nil && (left.Target == id || strings.HasSuffix(left.Target, ":"+id)) {
		err = os.Remove(t.journal) // first: a new file must never meet the old one's journal
	}
	if err == nil {
		err = os.Remove(t.partial)
	}
	return errors.Join(err, t.disk.Close())
}

// openUnlocked opens a disk whose last user may just have been killed: until the kernel
// has taken down such a user's rings, some milliseconds, they hold its locks.
func openUnlocked(ctx context.Context, url string, o diskurl.Options) (*disk.Disk, error) {
	for tries := 0; ; tries++ {
		d, err := diskurl.Open(ctx, url, o)
		if !errors.Is(err, diskurl.ErrInUse) || tries == 20 {
			return d, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// narrow takes from the new file's permissions what the source does not have; but, while it is
// being written, not those of keep.
func (t *target) narrow(keep fs.FileMode) error {
	if t.mode == nil {
		return nil
	}
	st, err := os.Stat(t.partial)
	if err != nil {
		return err
	}
	if mode := st.Mode().Perm() & (*t.mode | keep); mode != st.Mode().Perm() {
		return os.Chmod(t.partial, mode)
	}
	return nil
}

func (t *target) publish() error {
	if t.unnamed = t.written(); t.unnamed == nil {
		t.unnamed = t.narrow(0)
	}
	if t.unnamed == nil {
		t.unnamed = publish(t.partial, t.final)
	}
	return t.unnamed
}

// end cleans up after a failure: it keeps a file that a journal can go on with, or
// that only lacks its name, and removes another that is new. begun: the target may
// have changed.
func (t *target) end(err error, begun bool) error {
	var stopped *diskcopy.InterruptedError
	switch {
	case err == nil, t.unnamed != nil, t.present, t.resumed && !begun, errors.As(err, &stopped):
		return err
	case t.final == "" && begun:
		return fmt.Errorf("%w; the target %s is incomplete", err, t.disk)
	case t.final == "":
		return err
	}
	gone := t.written()
	if gone == nil {
		gone = os.Remove(t.partial)
	}
	if !t.named && t.journal != "" && begun { // else it may be another copy's
		if err := os.Remove(t.journal); !errors.Is(err, fs.ErrNotExist) {
			gone = errors.Join(gone, err)
		}
	}
	if gone != nil {
		return errors.Join(err, gone)
	}
	return fmt.Errorf("%w; the incomplete target was removed", err)
}

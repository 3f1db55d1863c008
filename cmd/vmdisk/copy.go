package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

type copyFlags struct {
	options              diskcopy.Options
	src, dst             diskurl.Options
	srcCache, cache, aio *choice
	flush, strategy      *choice
	progress             *choice
	requestSize, sparse  sizeFlag
	stats                string
	json                 bool
}

// replayable is what the NBD driver keeps in order to repeat it to a server that
// comes back. A larger copy would exceed it and find out at the last flush, so
// unless told otherwise it does not pay for keeping it (half the CPU time) and
// ends as soon as the target is lost.
const replayable = 64 << 20

func newCopy() *cobra.Command {
	f := copyFlags{
		srcCache: newCacheFlag(), cache: newCacheFlag(), aio: newAIOFlag(), flush: newChoice("on", "on", "off"),
		strategy: newChoice(string(diskcopy.Auto), strategies()...), progress: newProgressFlag(),
		sparse: 4096,
	}
	c := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy a disk, sparse and in parallel",
		Long: `Copy a disk. Holes of SRC are not read, runs of zeros in its data are found, and zeros reach
DST by the cheapest way that DST really has.

DST is made if it is a file that does not exist: as DST.partial, which takes the name DST once it
is complete and on stable storage. A copy to a local file that is stopped can be taken up again
with --resume; the journal is DST.journal unless --journal says otherwise. An existing DST has to
be at least as large as SRC; what it has beyond SRC's end is left alone.

What is written to a local DST goes to the storage, and leaves the page cache, while the copy goes
on; --flush off keeps it in memory.`,
		Example: `  vmdisk copy disk.raw nbd://host/export
  vmdisk copy --verify nbd+unix:///?socket=/run/disk.sock /dev/vg/lv
  vmdisk copy --resume disk.raw /mnt/backup/disk.raw`,
		Args: args(2, 2, "SRC and DST"),
		RunE: func(c *cobra.Command, a []string) error { return f.run(c, a[0], a[1]) },
	}
	f.register(c)
	return c
}

func strategies() []string {
	var out []string
	for _, s := range diskcopy.Strategies() {
		out = append(out, string(s))
	}
	return out
}

func (f *copyFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVarP(&f.src.Format, "format", "f", "", "format of SRC if it is a local file: raw")
	fl.StringVarP(&f.dst.Format, "target-format", "O", "", "format of DST if it is a local file: raw")
	fl.StringArrayVar(&f.src.Filters, "src-filter", nil, "put a filter over SRC; repeatable, first is outermost")
	fl.StringArrayVar(&f.dst.Filters, "dst-filter", nil, "put a filter over DST; repeatable, first is outermost")
	fl.Var(f.srcCache, "src-cache", "cache mode of SRC, as QEMU names them")
	fl.Var(f.cache, "cache", "cache mode of DST, as QEMU names them")
	fl.Var(f.aio, "aio", "asynchronous I/O of local files")
	fl.IntVar(&f.options.QueueDepth, "queue-depth", 0, "requests in flight (0: the default)")
	fl.Var(&f.requestSize, "request-size", "largest read or write (0: the default, 1M or what SRC and DST prefer)")
	fl.Var(&f.sparse, "sparse-size", "look for zeros in data in units of this; 0 does not look")
	fl.BoolVar(&f.options.TargetIsZero, "target-is-zero", false, "trust that DST reads as zeros throughout")
	fl.BoolVar(&f.options.Allocate, "allocate", false, "leave no holes in DST")
	fl.BoolVar(&f.options.NoClone, "no-clone", false, "share no blocks with SRC (reflink)")
	fl.Var(f.strategy, "strategy", "how zeros reach DST; all but auto are for comparison")
	fl.Var(f.flush, "flush", "flush DST at the end")
	fl.BoolVar(&f.options.Verify, "verify", false, "read both again and compare")
	fl.BoolVar(&f.options.Resume, "resume", false, "go on where a stopped copy's journal says")
	fl.StringVar(&f.options.Journal, "journal", "", "record progress here (default: DST.journal for a local file)")
	fl.Var(f.progress, "progress", "progress: auto (a bar on a terminal), bar, json (lines on stdout) or none")
	fl.StringVar(&f.stats, "stats", "", "write operations, bytes, phases and times to this file as JSON")
	fl.BoolVar(&f.json, "json", false, "print the same as JSON")
	registerShared(fl, &f.src)
}

func (f *copyFlags) run(c *cobra.Command, from, to string) error {
	f.complete(c.Flags().Changed)
	f.src.TLS, f.dst.TLS = f.src.TLS.Split(from, to)
	src, err := diskurl.Open(c.Context(), from, f.src)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if src.Size() > replayable && !c.Flags().Changed("reconnect") {
		f.dst.Reconnect = -1
	}
	stats, err := f.toTarget(c, src, from, to)
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	if f.json {
		return writeJSON(c.OutOrStdout(), stats)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), copySummary(stats))
	return err
}

// complete settles what several flags say together; given tells which were there.
func (f *copyFlags) complete(given func(string) bool) {
	f.src.FormatFlag, f.dst.FormatFlag = "-f", "-O"
	f.dst.Connections, f.dst.Reconnect = f.src.Connections, f.src.Reconnect
	f.dst.NoUnixSocket = f.src.NoUnixSocket
	f.src.ReadOnly = true
	f.src.Cache, f.dst.Cache = f.srcCache.value, f.cache.value
	f.src.AIO, f.dst.AIO = f.aio.value, f.aio.value
	f.options.Strategy = diskcopy.Strategy(f.strategy.value)
	f.options.RequestSize, f.options.SparseSize = int64(f.requestSize), int64(f.sparse)
	switch {
	case !given("sparse-size"):
		f.options.SparseSize = 0 // the default, which may sample
	case f.sparse == 0:
		f.options.SparseSize = -1
	}
	f.options.NoFlush = f.flush.value == "off"
}

// toTarget opens or makes the target, copies, and leaves the target complete, or
// resumable, or gone if it was new.
func (f *copyFlags) toTarget(c *cobra.Command, src *disk.Disk, from, to string) (diskcopy.Stats, error) {
	t, err := f.openTarget(c.Context(), from, to, src.Size())
	if err != nil {
		return diskcopy.Stats{}, fmt.Errorf("target: %w", err)
	}
	p := newProgress(c, f.progress.value)
	f.options.Progress = p.report
	stats, err := diskcopy.Copy(c.Context(), t.disk, src, f.options)
	p.end()
	begun := len(stats.Phases) > 0 // else the copy was refused before it touched anything
	err = t.end(errors.Join(err, t.disk.Close()), begun)
	if f.stats != "" {
		err = errors.Join(err, writeStats(f.stats, stats))
	}
	return stats, err
}

func writeStats(path string, s diskcopy.Stats) error {
	var b strings.Builder
	if err := writeJSON(&b, s); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		return fmt.Errorf("--stats: %w", err)
	}
	return nil
}

func copySummary(s diskcopy.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "copied %s in %.2f s:", sizeText(s.Size), s.WallSeconds)
	for _, k := range []struct {
		name string
		diskcopy.Count
	}{{"read", s.Read}, {"wrote", s.Write}, {"zeroed", s.Zero}, {"shared", s.Clone}, {"skipped", s.Skip}} {
		if k.Ops > 0 {
			fmt.Fprintf(&b, " %s %d bytes,", k.name, k.Bytes)
		}
	}
	fmt.Fprintf(&b, " zeros by: %s\n", s.ZeroBy)
	if s.ResumedAt > 0 || s.ResentBytes > 0 {
		fmt.Fprintf(&b, "resumed at offset %d, up to %d bytes were sent again\n", s.ResumedAt, s.ResentBytes)
	}
	if s.Verified {
		b.WriteString("verified: source and target are equal\n")
	}
	return b.String()
}

// target is where a copy goes.
type target struct {
	disk *disk.Disk
	// final is the path that the complete file gets; empty if the target was
	// there before.
	final, partial, journal string
	// resumed: the partial file was left by an earlier copy.
	resumed bool
	// named: the user named the journal, and keeps it in any case.
	named bool
}

func (f *copyFlags) openTarget(ctx context.Context, from, to string, size int64) (*target, error) {
	u, err := diskurl.Parse(to)
	if err != nil {
		return nil, err
	}
	if src, err := diskurl.Parse(from); err == nil && diskurl.Same(src, u) {
		return nil, fmt.Errorf("%s is the source itself; choose another target", to)
	}
	t := &target{named: f.options.Journal != ""}
	switch {
	case diskurl.Creatable(u):
		t.final, t.partial = u.Path, u.Path+".partial"
		f.setJournal(u)
		t.resumed = f.options.Resume && isRegular(t.partial) && isRegular(f.options.Journal)
		if !t.resumed {
			if err := f.makePartial(ctx, u, t.partial, size); err != nil {
				return nil, err
			}
		}
		u.Path = t.partial
	case isRegular(u.Path) && u.Local():
		f.setJournal(u)
	}
	t.journal = f.options.Journal
	t.disk, err = diskurl.Open(ctx, u.String(), f.dst)
	return t, err
}

// setJournal gives a copy to a local file its journal. Without the flush at the
// end nothing would be worth recording.
func (f *copyFlags) setJournal(u diskurl.URL) {
	if f.options.Journal == "" && (!f.options.NoFlush || f.options.Resume) {
		f.options.Journal = u.Path + ".journal"
	}
}

func isRegular(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// makePartial makes the file that will take the target's name, in place of what
// an earlier copy may have left.
func (f *copyFlags) makePartial(ctx context.Context, u diskurl.URL, partial string, size int64) error {
	left := isRegular(f.options.Journal)
	if _, err := os.Lstat(partial); err == nil && !left {
		return fmt.Errorf("%s exists, and no journal says that a copy left it; remove it, or choose another target", partial)
	}
	u.Path = partial
	o := diskurl.CreateOptions{Size: size, Format: f.dst.Format, FormatFlag: "-O", Replace: left}
	if f.options.Allocate {
		o.Preallocation = "falloc"
	}
	return diskurl.Create(ctx, u.String(), o)
}

// end gives a complete new file its name. After a failure it keeps a file that
// a journal can go on with, and removes another that is new. begun: the target
// may have changed.
func (t *target) end(err error, begun bool) error {
	var stopped *diskcopy.InterruptedError
	switch {
	case err == nil && t.final != "":
		return publish(t.partial, t.final)
	case err == nil, t.resumed, errors.As(err, &stopped) && (stopped.Offset > 0 || t.named):
		return err
	}
	if stopped != nil {
		err = stopped.Err // nothing to go on with
		_ = os.Remove(t.journal)
	}
	switch {
	case t.final == "" && begun:
		return fmt.Errorf("%w; the target %s is incomplete", err, t.disk)
	case t.final == "":
		return err
	}
	if gone := os.Remove(t.partial); gone != nil {
		return errors.Join(err, gone)
	}
	return fmt.Errorf("%w; the incomplete target was removed", err)
}

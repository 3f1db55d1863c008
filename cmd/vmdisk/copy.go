package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

type copyFlags struct {
	options              diskcopy.Options
	src, dst             diskurl.Options
	srcCache, cache, aio *choice
	flush, strategy      *choice
	progress, resume     *choice
	requestSize, sparse  sizeFlag
	stats                string
	json                 bool
	streams              streams
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
		resume: newChoice(resumeOff, resumeOff, resumeCheck, resumeTrust), sparse: 4096,
	}
	c := &cobra.Command{
		Use:   "copy SRC DST",
		Short: "Copy a disk, sparse and in parallel",
		Long: `Copy a disk. Holes of SRC are not read, runs of zeros in its data are found, and zeros reach
DST by the cheapest way that DST really has.

DST is made if it is a file that does not exist: as DST.partial, which takes the name DST once it
is complete and on stable storage, and SRC's permissions at most. An existing DST has to be at least
as large as SRC; what it has beyond SRC's end is left alone.

A copy that was stopped, however, goes on with --resume. It first compares what is done, SRC with
DST, and writes again what differs, as either may have changed meanwhile; --resume=trust does not. If
DST is complete already, it is compared and nothing is written. The journal of a copy to a local
file is DST.journal. A copy to a server or a device has one only with --resume, or --journal; it
lies beside SRC if that is a local file, else in the current folder, and is named after SRC and DST,
without what could be a secret (a ticket) in DST.

"-" is standard input or output. It, a pipe and a character device such as /dev/null, at either end, are
read or written once, from beginning to end; with DST "-" the summary goes to standard error. A new DST gets
the stream's size; another one has to be large enough. A copy of a stream cannot be resumed.

What is written to a local DST goes to the storage, and leaves the page cache, while the copy goes
on; --flush off keeps it in memory.`,
		Example: `  vmdisk copy disk.raw nbd://host/export
  vmdisk copy --verify nbd+unix:///?socket=/run/disk.sock /dev/vg/lv
  vmdisk copy --resume disk.raw /mnt/backup/disk.raw
  zcat disk.gz | vmdisk copy --progress=3 - nbd://host/export 3>percents`,
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
	fl.StringVarP(&f.src.Format, "format", "f", "", "format of SRC: raw or qcow2")
	fl.StringVarP(&f.dst.Format, "target-format", "O", "", "format of DST: raw or qcow2")
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
	fl.Var(f.resume, "resume", "go on with a stopped copy: check compares what is done and mends it, trust believes that nothing changed")
	fl.Lookup("resume").NoOptDefVal = resumeCheck
	fl.StringVar(&f.options.Journal, "journal", "", "record progress here (default: see above)")
	fl.DurationVar(&f.options.Checkpoint, "checkpoint", 0, "time between two records in the journal, each of which flushes DST (0: the default, 5s)")
	fl.Var(f.progress, "progress", "progress: auto (a bar on a terminal), bar, json (lines on stdout), none, or a descriptor to write \"N/100\" lines to")
	fl.StringVar(&f.stats, "stats", "", "write operations, bytes, phases and times to this file as JSON")
	fl.BoolVar(&f.json, "json", false, "print the same as JSON")
	registerShared(fl, &f.src)
}

func (f *copyFlags) run(c *cobra.Command, from, to string) error {
	f.complete(c.Flags().Changed)
	f.src.TLS, f.dst.TLS = f.src.TLS.Split(from, to)
	if err := checkStats(f.stats, from, to); err != nil {
		return err
	}
	s, from, err := openStreams(c.Context(), from, to)
	if err != nil {
		return err
	}
	f.streams = s
	if to == standard {
		c.SetOut(c.ErrOrStderr()) // standard output is the disk's
	}
	var text string
	var stats diskcopy.Stats
	if s.any() {
		if err = f.checkStreams(c.Flags().Changed); err == nil {
			text, stats, err = f.runStream(c, from, to)
		}
	} else {
		text, stats, err = f.runDisks(c, from, to)
	}
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	return f.report(c, text, stats)
}

// runDisks copies from disk to disk.
func (f *copyFlags) runDisks(c *cobra.Command, from, to string) (text string, stats diskcopy.Stats, err error) {
	src, err := diskurl.Open(c.Context(), from, f.src)
	if err != nil {
		return "", stats, fmt.Errorf("source: %w", err)
	}
	if src.Size() > replayable && !c.Flags().Changed("reconnect") {
		f.dst.Reconnect = -1
	}
	if isNull(to) {
		to = fmt.Sprintf("%s:%d", diskurl.SchemeNull, src.Size())
	}
	text, stats, err = f.toTarget(c, src, from, to)
	return text, stats, errors.Join(err, src.Close())
}

func (f *copyFlags) report(c *cobra.Command, text string, stats diskcopy.Stats) error {
	if f.stats != "" {
		if err := writeStats(f.stats, stats); err != nil {
			return err
		}
	}
	if f.json {
		return writeJSON(c.OutOrStdout(), stats)
	}
	_, err := fmt.Fprint(c.OutOrStdout(), text)
	return err
}

// complete settles what several flags say together; given tells which were there.
func (f *copyFlags) complete(given func(string) bool) {
	f.src.FormatFlag, f.dst.FormatFlag = "-f", "-O"
	f.dst.Connections, f.dst.Reconnect = f.src.Connections, f.src.Reconnect
	f.dst.NoUnixSocket, f.dst.Timeout = f.src.NoUnixSocket, f.src.Timeout
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
	f.options.Resume, f.options.Trust = f.resume.value != resumeOff, f.resume.value == resumeTrust
}

// checkStats refuses to write the figures over one of the disks.
func checkStats(path string, disks ...string) error {
	st, err := os.Stat(path)
	if path == "" || err != nil {
		return nil
	}
	for _, d := range disks {
		u, err := diskurl.Parse(d)
		if err != nil {
			continue // whoever opens it says why
		}
		if of, err := os.Stat(u.Path()); err == nil && os.SameFile(st, of) {
			return usagef("--stats %s is %s itself: name another file", path, d)
		}
	}
	return nil
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

package main

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

type convertFlags struct {
	src, dst          diskurl.Options
	srcCache, cache   *choice
	imageOptions      []string
	sparse            sizeFlag
	rate              sizeFlag
	tasks             int
	progress, quiet   bool
	existing, zeroed  bool
	compress          bool
	anyOrder, offload bool
}

func newConvert() *cobra.Command {
	f := convertFlags{srcCache: newCacheFlag(), cache: newCacheFlag(), sparse: 4096}
	c := &cobra.Command{
		Use:   "convert SRC... DST",
		Short: "Copy disks to a new image, as qemu-img convert does",
		Long: `Copy SRC, or several one after the other, to DST, with the flags of qemu-img convert. A file DST
that exists is replaced, by one of the size of what is copied; it keeps its content until the new
one is complete and on stable storage. With -n, and on devices and servers, DST is written as it is.

copy has more to offer: it resumes, verifies, and tells what it did.`,
		Example: "  vmdisk convert -f raw -O raw -p disk.raw copy.raw\n  vmdisk convert -n disk.raw nbd://host/export",
		Args:    args(2, -1, "SRC and DST"),
		RunE:    func(c *cobra.Command, a []string) error { return f.run(c, a[:len(a)-1], a[len(a)-1]) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.src.Format, "format", "f", "", "format of SRC: raw or qcow2")
	fl.StringVarP(&f.dst.Format, "target-format", "O", diskurl.FormatRaw, "format of DST: raw")
	fl.VarP(f.cache, "cache", "t", "cache mode of DST, as QEMU names them")
	fl.VarP(f.srcCache, "src-cache", "T", "cache mode of SRC, as QEMU names them")
	fl.StringArrayVarP(&f.imageOptions, "options", "o", nil, "KEY=VALUE[,...] of the new image: preallocation=off|falloc|full")
	fl.VarP(&f.sparse, "sparse-size", "S", "look for zeros in units of this; 0 writes them all, and leaves no holes")
	fl.VarP(&f.rate, "rate-limit", "r", "write this many bytes a second at most")
	fl.IntVarP(&f.tasks, "tasks", "m", 0, "requests in flight, 1 to 16 (0: the default)")
	fl.BoolVarP(&f.progress, "progress", "p", false, "show percents, as qemu-img does")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "print errors only (-p excludes it)")
	fl.BoolVarP(&f.existing, "no-create", "n", false, "write to a DST that exists, and is as large")
	fl.BoolVar(&f.zeroed, "target-is-zero", false, "trust that DST reads as zeros throughout; with -n")
	fl.BoolVarP(&f.compress, "compress", "c", false, "compress; a raw image cannot be")
	fl.BoolVarP(&f.anyOrder, "out-of-order", "W", false, "write in any order, which is always done")
	fl.BoolVarP(&f.offload, "copy-offload", "C", false, "have the file system share blocks, which is always tried")
	registerShared(fl, &f.src)
	return c
}

// window is a part of a disk, opened.
type window struct {
	disk *disk.Disk
	name string
}

func (f *convertFlags) run(c *cobra.Command, from []string, to string) (err error) {
	image, err := f.check(c)
	if err != nil {
		return err
	}
	f.src.FormatFlag, f.dst.FormatFlag = "-f", "-O"
	f.src.ReadOnly, f.src.Cache, f.dst.Cache = true, f.srcCache.value, f.cache.value
	f.dst.ServerOptions = f.src.ServerOptions
	f.src.TLS, f.dst.TLS = f.src.TLS.Split(from[0], to)
	var sources []window
	defer func() {
		for _, s := range sources {
			err = errors.Join(err, s.disk.Close())
		}
	}()
	for _, name := range from {
		d, err := diskurl.Open(c.Context(), name, f.src)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		sources = append(sources, window{d, name})
	}
	w := imageWriter{target: f.dst, existing: f.existing, preallocation: image.preallocation, options: f.copyOptions()}
	end := func() {}
	if f.progress && !f.quiet {
		w.options.Progress, end = percentLines(c.OutOrStdout())
	}
	err = w.write(c.Context(), sources, to)
	end()
	return err
}

// check refuses what cannot be done.
func (f *convertFlags) check(c *cobra.Command) (imageOptions, error) {
	o, err := parseImageOptions(f.imageOptions)
	given := c.Flags().Changed
	switch {
	case err != nil:
	case o.size >= 0:
		err = usagef("-o size: a converted image has the size of its source")
	case f.compress:
		err = errors.New("-c: a raw image cannot be compressed")
	case given("tasks") && (f.tasks < 1 || f.tasks > 16):
		err = usagef("-m: want 1 to 16 requests in flight")
	case f.sparse%sector != 0 || f.sparse > 16<<20:
		err = usagef("-S: want a multiple of 512 up to 16M, or 0 for no holes")
	case f.zeroed && !f.existing:
		err = usagef("--target-is-zero is of a target that exists: give -n, too")
	case f.existing && f.imageOptions != nil:
		err = usagef("-o is for a new image, -n takes the one that is there")
	}
	if f.rate > 0 {
		f.dst.Filters = []string{fmt.Sprintf("rate:write-rate=%d", int64(f.rate))}
	}
	return o, err
}

func (f *convertFlags) copyOptions() diskcopy.Options {
	o := diskcopy.Options{QueueDepth: f.tasks, TargetIsZero: f.zeroed, SparseSize: -1, Allocate: f.sparse == 0}
	if f.sparse > 0 {
		o.SparseSize = min(int64(1)<<(bits.Len64(uint64(f.sparse))-1), 1<<20)
	}
	return o
}

// imageWriter fills a target with disks, one after the other.
type imageWriter struct {
	target        diskurl.Options
	existing      bool // the target is there, and stays as large as it is
	preallocation string
	options       diskcopy.Options
	done, total   int64
}

func (w *imageWriter) write(ctx context.Context, sources []window, to string) error {
	u, err := diskurl.Parse(to)
	if err != nil {
		return err
	}
	for _, s := range sources {
		if from, err := diskurl.Parse(s.name); err == nil && diskurl.Same(from, u) {
			return fmt.Errorf("target: %s is the source itself; choose another target", to)
		}
		w.total += wholeSize(s.disk.Size())
	}
	if !w.existing && u.Local() && (diskurl.Creatable(u) || isRegular(u.Path())) {
		return w.replace(ctx, sources, u)
	}
	return w.fill(ctx, sources, u)
}

func wholeSize(n int64) int64 { return (n + sector - 1) &^ (sector - 1) }

// replace makes a file of its own, which takes the name of the target once it is
// complete. An old one is kept from others meanwhile, and keeps its permissions.
func (w *imageWriter) replace(ctx context.Context, sources []window, u diskurl.URL) (err error) {
	o := diskurl.CreateOptions{Size: w.total, Format: w.target.Format, FormatFlag: "-O", Preallocation: w.preallocation}
	if w.options.Allocate && o.Preallocation == "" {
		o.Preallocation = "falloc"
	}
	final, created := u.Path(), diskurl.Creatable(u)
	if !created {
		old, err := diskurl.Open(ctx, diskurl.File(final).String(), diskurl.Options{Format: diskurl.FormatRaw})
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		defer func() { err = errors.Join(err, old.Close()) }()
		if final, err = filepath.EvalSymlinks(final); err != nil {
			return fmt.Errorf("target: %w", err)
		}
		st, err := os.Stat(final)
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
		o.Mode = st.Mode().Perm()
	} else if _, err := os.Lstat(final); err == nil {
		return fmt.Errorf("target: %s is a symbolic link to what does not exist; name the file that you mean", final)
	}
	fresh := u.At(fmt.Sprintf("%s.new-%d", final, os.Getpid()))
	if err := diskurl.Create(ctx, fresh.String(), o); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	w.options.TargetIsZero = true
	err = w.fill(ctx, sources, fresh)
	switch {
	case err != nil:
	case created:
		return publish(fresh.Path(), final)
	default:
		if err = os.Chmod(fresh.Path(), o.Mode); err == nil {
			err = os.Rename(fresh.Path(), final)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(fresh.Path()))
	}
	return syncDir(filepath.Dir(final))
}

// fill copies the sources to the target at u.
func (w *imageWriter) fill(ctx context.Context, sources []window, u diskurl.URL) error {
	at := int64(0)
	report := w.options.Progress
	for _, s := range sources {
		if report != nil {
			w.options.Progress = func(p diskcopy.Progress) {
				if p.Phase == "copy" {
					report(diskcopy.Progress{Phase: p.Phase, Done: at + p.Done, Total: w.total})
				}
			}
		}
		if err := w.copy(ctx, s.disk, u, at, len(sources) > 1); err != nil {
			return err
		}
		at += wholeSize(s.disk.Size())
	}
	return nil
}

func (w *imageWriter) copy(ctx context.Context, src *disk.Disk, u diskurl.URL, at int64, part bool) error {
	if part && src.Size() == 0 {
		return nil
	}
	o := w.target
	if part {
		o.Filters = append([]string{fmt.Sprintf("limit:offset=%d,size=%d", at, src.Size())}, o.Filters...)
	}
	dst, err := diskurl.Open(ctx, u.String(), o)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	_, err = diskcopy.Copy(ctx, dst, src, w.options)
	return errors.Join(err, dst.Close())
}

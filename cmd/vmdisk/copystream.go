package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// A pipe or a character device at either end of a copy is read or written from its
// beginning to its end, and so is what "-" stands for.
const standard = "-"

// streams are the ends that are no disks; nil where one is.
type streams struct {
	in, out *os.File
}

func (s *streams) any() bool { return s.in != nil || s.out != nil }

func (s *streams) close() error {
	var err error
	for _, f := range []*os.File{s.in, s.out} {
		if f != nil && f != os.Stdin && f != os.Stdout {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// openStreams opens the ends that are streams; from is what is left to be opened as a disk.
func openStreams(ctx context.Context, from, to string) (s streams, disk string, err error) {
	if from == standard && seekableStdin() {
		from = "/dev/stdin" // a file by redirection has a size, holes, and room for several readers
	}
	if from == standard || isStream(from) {
		if s.in, err = openStream(ctx, from, os.Stdin, os.O_RDONLY); err != nil {
			return s, from, fmt.Errorf("source: %w", err)
		}
	}
	if to == standard && isTerminal(os.Stdout) {
		return s, from, errors.Join(usagef("standard output is a terminal: redirect it"), s.close())
	}
	if to == standard || isStream(to) && (s.in != nil || !isNull(to)) {
		if s.out, err = openStream(ctx, to, os.Stdout, os.O_WRONLY); err != nil {
			return s, from, errors.Join(fmt.Errorf("target: %w", err), s.close())
		}
	}
	return s, from, nil
}

// refuseSelf refuses to copy a file or device to itself, which a redirection may have opened: the shell's
// >> would let it grow without end, and a copy between two places of it destroys it.
func (s *streams) refuseSelf(from, to string) error {
	source := storage(s.in, from)
	if !s.any() || source == "" || source != storage(s.out, to) {
		return nil
	}
	if to == standard {
		to = "standard output"
	}
	return fmt.Errorf("target: %s is the source itself; choose another target", to)
}

// storage identifies the file or device behind a descriptor, or else behind a disk's name; "" if there is none.
func storage(f *os.File, text string) string {
	path := text
	if f != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	} else if u, err := diskurl.Parse(text); err == nil && u.Local() {
		path = u.Path()
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice|fs.ModeSocket) != 0 {
		return ""
	}
	id, err := diskurl.Identity(path)
	if err != nil {
		return ""
	}
	return id
}

// seekableStdin: standard input is a file, at its beginning.
func seekableStdin() bool {
	st, err := os.Stdin.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	at, err := os.Stdin.Seek(0, io.SeekCurrent)
	return err == nil && at == 0
}

// isStream reports whether text is the path of a pipe or a character device.
func isStream(text string) bool {
	u, err := diskurl.Parse(text)
	if err != nil || !u.Local() {
		return false
	}
	st, err := os.Stat(u.Path())
	return err == nil && st.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0
}

// isNull reports whether what is written to text is gone.
func isNull(text string) bool { return text == "null:" || text == os.DevNull }

// openStream opens a pipe or a device so that the end of ctx ends what waits for it.
func openStream(ctx context.Context, text string, std *os.File, flag int) (f *os.File, err error) {
	if text == standard {
		f = openStandard(std, flag)
	} else if f, err = openPipe(ctx, text, flag); err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) }) // where it cannot, reads and writes do not block for long
	return f, nil
}

// openStandard opens a pipe anew, as one that can be waited for with an end. The
// flag for that would else be everybody's who has the same pipe.
func openStandard(std *os.File, flag int) *os.File {
	st, err := std.Stat()
	if err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		return std
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", std.Fd()), flag|unix.O_NONBLOCK, 0)
	if err != nil {
		return std
	}
	return f
}

// openPipe waits until somebody has the other end of a named pipe.
func openPipe(ctx context.Context, text string, flag int) (*os.File, error) {
	u, err := diskurl.Parse(text)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		if other, err := os.OpenFile(u.Path(), os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			_ = other.Close() // the other end was there for a moment
		}
	})
	defer stop()
	f, err := os.OpenFile(u.Path(), flag, 0)
	if err == nil && ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), f.Close())
	}
	return f, err
}

// checkStreams refuses what cannot be done with a stream.
func (f *copyFlags) checkStreams(given func(string) bool) error {
	for _, name := range []string{"resume", "journal", "verify"} {
		if given(name) {
			return usagef("--%s needs a disk at both ends: a stream cannot be read twice", name)
		}
	}
	for name, stream := range map[string]bool{"src-filter": f.streams.in != nil, "dst-filter": f.streams.out != nil} {
		if stream && given(name) {
			return usagef("--%s needs a disk: a stream has no offsets", name)
		}
	}
	return nil
}

// runStream copies with a stream at one end, or both.
func (f *copyFlags) runStream(c *cobra.Command, from, to string) (text string, stats diskcopy.Stats, err error) {
	if err := f.streams.refuseSelf(from, to); err != nil {
		return "", stats, err
	}
	switch {
	case f.streams.in == nil:
		stats, err = f.export(c, from)
	case f.streams.out == nil:
		return f.toTarget(c, nil, from, to)
	default:
		stats, err = f.pass()
	}
	if c.Context().Err() != nil {
		err = c.Context().Err()
	}
	return copySummary(stats), stats, err
}

// export copies a disk to a stream.
func (f *copyFlags) export(c *cobra.Command, from string) (stats diskcopy.Stats, err error) {
	src, err := diskurl.Open(c.Context(), from, f.src)
	if err != nil {
		return stats, fmt.Errorf("source: %w", err)
	}
	p := newProgress(c, f.progress.value)
	f.options.Progress = p.report
	stats, err = diskcopy.Export(c.Context(), f.streams.out, src, f.options)
	p.end()
	return stats, errors.Join(err, src.Close())
}

// pass copies a stream to a stream.
func (f *copyFlags) pass() (diskcopy.Stats, error) {
	start := time.Now()
	n, err := io.CopyBuffer(f.streams.out, f.streams.in, make([]byte, 1<<20))
	return diskcopy.Stats{Size: n, ZeroBy: "writes", Counts: diskcopy.Counts{Read: diskcopy.Count{Ops: 1, Bytes: n}, Write: diskcopy.Count{Ops: 1, Bytes: n}},
		WallSeconds: time.Since(start).Seconds()}, err
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskcopy"
)

// newProgressFlag also takes the number of a descriptor, as nbdcopy does.
func newProgressFlag() *choice {
	c := newChoice("auto", "auto", "bar", "json", "none", "FD")
	c.other = func(s string) error {
		_, err := progressFD(s)
		return err
	}
	return c
}

// progressFD checks that text is the number of a descriptor that whoever started the program
// gave it. The Go runtime's own, which are numbered alike, are of no file type.
func progressFD(text string) (int, error) {
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 1 {
		return 0, fmt.Errorf("want auto, bar, json, none, or the number of an open descriptor")
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err != nil || st.Mode&unix.S_IFMT == 0 || flags&unix.O_ACCMODE == unix.O_RDONLY {
		return 0, fmt.Errorf("descriptor %d is not open for writing", fd)
	}
	return fd, nil
}

// progress shows how far long work has come. Its methods are called from one
// goroutine at a time.
type progress struct {
	report func(diskcopy.Progress) // nil where nothing is shown
	bar    *bar                    // nil where there is none
}

func newProgress(c *cobra.Command, mode string) *progress {
	p := &progress{}
	if fd, err := progressFD(mode); err == nil {
		p.report = percents(fd)
		return p
	}
	switch {
	case mode == "json":
		p.report = jsonProgress(c.OutOrStdout())
	case mode == "bar" || mode == "auto" && isTerminal(c.ErrOrStderr()):
		p.bar = newBar(c.ErrOrStderr())
		p.report = p.bar.draw
	}
	return p
}

// jsonProgress writes a line per report: {"phase":"copy","done":1048576,"total":2097152}.
func jsonProgress(w io.Writer) func(diskcopy.Progress) {
	last := diskcopy.Progress{Done: -1}
	return func(now diskcopy.Progress) {
		if now == last {
			return
		}
		last = now
		if line, err := json.Marshal(now); err == nil {
			fmt.Fprintf(w, "%s\n", line) // the end of a pipe shows at the result
		}
	}
}

// percents writes "N/100" lines, ascending, of the phase that takes longest. It writes to the descriptor
// itself, as an *os.File would close it when it is collected.
func percents(fd int) func(diskcopy.Progress) {
	last := int64(-1)
	return func(now diskcopy.Progress) {
		n := int64(0)
		switch {
		case now.Phase != "copy" && now.Phase != "compare" && now.Phase != "checksum":
			return
		case now.Total > 0:
			n = int64(float64(now.Done) / float64(now.Total) * 100)
		case now.Done > 0:
			return // a stream has no percents
		}
		if n > last {
			last = n
			_, _ = unix.Write(fd, fmt.Appendf(nil, "%d/100\n", n)) // who does not read it any more misses nothing else
		}
	}
}

// end leaves the terminal to others.
func (p *progress) end() {
	if p.bar != nil {
		p.bar.clear()
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

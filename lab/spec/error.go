package spec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/suggest"
)

// Pos is where something was written. Line 0: File is no file ("--set nodes=2").
// Column 0: the line as a whole.
type Pos struct {
	File         string
	Line, Column int // from 1
}

// String returns FILE:LINE:COLUMN.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Error is a fault in an experiment: the mistake of whoever wrote it, or of a
// --set, never of the host.
type Error struct {
	Pos Pos
	Err error
}

func (e *Error) Error() string {
	if e.Pos == (Pos{}) {
		return e.Err.Error()
	}
	return e.Pos.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errAt(p Pos, format string, args ...any) error {
	return &Error{Pos: p, Err: fmt.Errorf(format, args...)}
}

// didYouMean returns ` (did you mean "x"?)` for the nearest known name, or "".
func didYouMean(name string, known []string) string {
	best := suggest.Nearest(name, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// noneOf is the error for a value outside a closed set.
func noneOf(value string, known []string) error {
	return fmt.Errorf("%q is none of %s%s", value, strings.Join(known, ", "), didYouMean(value, known))
}

// inJob moves an error of a job file to where its text stands, and gives one of
// the options that were added the place pos.
func inJob(err error, w *Workload, pos Pos, options []string) error {
	what := "workload " + w.Name
	if len(options) > 0 {
		what += " with " + strings.Join(options, " ")
	}
	var e *jobfile.Error
	if !errors.As(err, &e) {
		return errAt(w.Pos, "%s: %w", what, err)
	}
	if e.Pos.File == jobText {
		return errAt(w.job.at(e.Pos.Line), "%s: %w", what, e.Err)
	}
	return errAt(pos, "%s: %w", what, e.Err)
}

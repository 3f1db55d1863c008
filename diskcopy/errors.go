package diskcopy

import (
	"errors"
	"fmt"
)

// Side tells the two disks of a copy apart.
type Side string

// The two sides.
const (
	Source Side = "source"
	Target Side = "target"
)

// CopyError is a failure of one of the two disks.
type CopyError struct {
	Side Side
	Err  error
}

func (e *CopyError) Error() string { return string(e.Side) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *CopyError) Unwrap() error { return e.Err }

func sourceErr(err error) error { return sideErr(Source, err) }
func targetErr(err error) error { return sideErr(Target, err) }

func sideErr(side Side, err error) error {
	if err == nil {
		return nil
	}
	var have *CopyError // allocated here, so not for nil
	if errors.As(err, &have) {
		return err
	}
	return &CopyError{Side: side, Err: err}
}

// InterruptedError wraps the failure (or the cancellation) of a copy that can
// be continued: everything below Offset is on the target's stable storage.
type InterruptedError struct {
	Offset, Size int64
	Journal      string
	Err          error
}

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("%v; %d of %d bytes are safe on the target, go on with --resume --journal %s", e.Err, e.Offset, e.Size, e.Journal)
}

// Unwrap returns the cause.
func (e *InterruptedError) Unwrap() error { return e.Err }

package server

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// remoteError is an answer of the daemon behind a ticket's http or https URL.
type remoteError interface {
	error
	HTTPStatus() (status int, message string)
}

// clientFault reports whether the other daemon found fault with what it was asked for,
// not with itself or its storage.
func clientFault(err remoteError) bool {
	status, _ := err.HTTPStatus()
	return status >= 400 && status < 500
}

// passOn answers as the other daemon did, without the id of the ticket there.
func passOn(err remoteError) *httpError {
	status, message := err.HTTPStatus()
	e := failf(status, "%s", hideError(message))
	e.close = status == 403
	return e
}

// readable is how much of a ticket's image can be read. The image of another daemon may
// end before that daemon's ticket does; an answer that promised more would break off.
func (t *Ticket) readable(ctx context.Context, d *disk.Disk) (n int64, err error) {
	a, ok := disk.As[interface {
		Available(ctx context.Context) (int64, error)
	}](d)
	if !ok {
		return d.Size(), nil
	}
	err = t.run(ctx, 0, func(ctx context.Context, _ *operation) (err error) {
		n, err = a.Available(ctx)
		return err
	})
	return n, err
}

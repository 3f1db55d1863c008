package nbd

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrMalformed is matched by every decoding error: the peer broke the protocol
// and the stream cannot be trusted any more.
var ErrMalformed = errors.New("malformed NBD message")

// ErrShort: the buffer ends before the message does. Read more and decode again.
var ErrShort = errors.New("incomplete NBD message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Errno is an error number on the wire (section "Error values"). The numbers
// are the protocol's own, whatever the peer's operating system calls them.
type Errno uint32

// Error numbers.
const (
	OK        Errno = 0
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// errnos lists what the protocol knows, with the system error that each stands for.
var errnos = []struct {
	wire Errno
	name string
	sys  syscall.Errno
}{
	{EPERM, "EPERM", syscall.EPERM},
	{EIO, "EIO", syscall.EIO},
	{ENOMEM, "ENOMEM", syscall.ENOMEM},
	{EINVAL, "EINVAL", syscall.EINVAL},
	{ENOSPC, "ENOSPC", syscall.ENOSPC},
	{EOVERFLOW, "EOVERFLOW", syscall.EOVERFLOW},
	{ENOTSUP, "ENOTSUP", syscall.ENOTSUP},
	{ESHUTDOWN, "ESHUTDOWN", syscall.ESHUTDOWN},
}

// Error describes the error.
func (e Errno) Error() string {
	for _, k := range errnos {
		if k.wire == e {
			return fmt.Sprintf("NBD server error %s (%s)", k.name, k.sys.Error())
		}
	}
	return fmt.Sprintf("NBD server error %d", uint32(e))
}

// Unwrap returns the system error that the number stands for, so that
// errors.Is(err, syscall.ENOSPC) works; unknown numbers count as EINVAL, as the
// protocol asks.
func (e Errno) Unwrap() error {
	for _, k := range errnos {
		if k.wire == e {
			return k.sys
		}
	}
	return syscall.EINVAL
}

// FromSystem returns the number that stands for a system error on the wire. What
// the protocol has no number for becomes EIO.
func FromSystem(e syscall.Errno) Errno {
	switch e {
	case 0:
		return OK
	case syscall.EROFS, syscall.EACCES:
		return EPERM
	case syscall.EDQUOT, syscall.EFBIG:
		return ENOSPC
	}
	for _, k := range errnos {
		if k.sys == e {
			return k.wire
		}
	}
	return EIO
}

package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/nbd"
)

var (
	// ErrDisconnected: the connection was lost (or the server broke the protocol,
	// which also matches nbd.ErrMalformed) before the request was answered. A
	// request that changes the export may or may not have been done.
	ErrDisconnected = errors.New("connection to the NBD server lost")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("NBD client is closed")
	// ErrTLSRequired: the server speaks TLS only.
	ErrTLSRequired = errors.New("the NBD server requires TLS: use an nbds:// URL")
	// ErrNoTLS: TLS was asked for and the server has none.
	ErrNoTLS = errors.New("the NBD server does not offer TLS")
)

// Error is the server's refusal of a request. It unwraps to the nbd.Errno and
// through it to the system's error number.
type Error struct {
	Command nbd.Command
	Errno   nbd.Errno
	Message string // the server's words, may be empty
	Offset  int64  // where a read failed, or -1
}

func (e *Error) Error() string {
	s := e.Errno.Error()
	if e.Message != "" {
		s += ": " + printable(e.Message)
	}
	if e.Offset >= 0 {
		s += fmt.Sprintf(" (at offset %d)", e.Offset)
	}
	return s
}

// Unwrap returns the error number.
func (e *Error) Unwrap() error { return e.Errno }

// OptionError is the server's refusal of an option in the handshake.
type OptionError struct {
	Option  nbd.Option
	Reply   nbd.OptionReplyType
	Message string
}

func (e *OptionError) Error() string {
	s := fmt.Sprintf("NBD server refuses %v: %v", e.Option, e.Reply)
	if e.Message != "" {
		s += ": " + printable(e.Message)
	}
	if e.Reply == nbd.RepErrTLSRequired {
		s += ": " + ErrTLSRequired.Error()
	}
	return s
}

// noTLS tells a server that refuses STARTTLS since it has no TLS from one that refuses
// this client for now: one that is full answers every option so, with its reason.
func (e *OptionError) noTLS() bool {
	return e.Reply != nbd.RepErrShutdown && (e.Reply != nbd.RepErrPolicy || e.Message == "" || strings.Contains(e.Message, "TLS"))
}

// Is matches ErrTLSRequired.
func (e *OptionError) Is(target error) bool {
	return target == ErrTLSRequired && e.Reply == nbd.RepErrTLSRequired
}

// printable keeps a server's words from controlling a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", nbd.ErrMalformed, fmt.Sprintf(format, args...))
}

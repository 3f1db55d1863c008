package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// The exit statuses.
const (
	statusFailed = 1
	statusUsage  = 2
)

// statusError ends the program with a status of its own; without err, silently,
// unless it is joined with an error that speaks.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// usage marks err as a mistake on the command line.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{statusUsage, err}
}

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// args makes a check of the arguments' number with a message that names them.
func args(low, high int, want string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) < low || high >= 0 && len(got) > high {
			return usagef("want %s; see `%s --help`", want, c.CommandPath())
		}
		return nil
	}
}

// finish prints what went wrong, in one line, and returns the exit status.
func finish(ctx context.Context, cmd *cobra.Command, err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	status := statusFailed
	var s *statusError
	var syntax *diskurl.SyntaxError
	switch {
	case errors.As(err, &s):
		status = s.status
	case errors.As(err, &syntax):
		status = statusUsage
	}
	if s := signalStatus(ctx, err); s != 0 {
		status = s
	}
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if text == "" {
		return status
	}
	if ctx.Err() != nil {
		text = strings.Replace(text, context.Canceled.Error(), "interrupted", 1)
	}
	if advice := advise(err); advice != "" {
		text += "; " + advice
	}
	fmt.Fprintf(stderr, "%s: %s\n", strings.ReplaceAll(cmd.CommandPath(), " ", ": "), printable(text))
	return status
}

// advise says what to do about the common causes, unless the message does.
func advise(err error) string {
	text := err.Error()
	var answer interface{ HTTPStatus() (int, string) }
	if errors.As(err, &answer) {
		switch status, _ := answer.HTTPStatus(); status {
		case http.StatusForbidden, http.StatusUnauthorized:
			return "the ticket is unknown or expired, or does not allow this: ask for a new one"
		case http.StatusNotFound:
			return "check the URL"
		}
	}
	permission, inUse := "check the permissions, or run as root", "end the other user, or read it with --force-share"
	if os.Geteuid() == 0 {
		permission = "root may not do this either: check the path and the mount"
	}
	if strings.HasPrefix(text, string(diskcopy.Target)+":") {
		inUse = "end the other user"
	}
	for _, a := range []struct {
		cause  error
		unless string
		advice string
	}{
		{diskurl.ErrInUse, "force-share", inUse},
		{syscall.ETIMEDOUT, "", "see whether the server works, or give it longer (--timeout; bench: --server-timeout)"},
		{syscall.ECONNREFUSED, "", "start the server, or correct the address"},
		{fs.ErrExist, "--", "choose another name"},
		{fs.ErrNotExist, "", "check the path"},
		{disk.ErrReadOnly, "", "choose a writable disk"}, // before the permission that is why
		{fs.ErrPermission, "", permission},
		{syscall.ENOSPC, "", "free space there and try again"},
		{syscall.EROFS, "", "choose a writable disk"},
		{context.DeadlineExceeded, "", "see whether the server answers"},
	} {
		if errors.Is(err, a.cause) && (a.unless == "" || !strings.Contains(text, a.unless)) {
			return a.advice
		}
	}
	return ""
}

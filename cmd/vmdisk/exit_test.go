package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/imageio/client"
)

// TestAdviceFits: the hint after a message is about what failed.
func TestAdviceFits(t *testing.T) {
	t.Parallel()
	status := func(n int, leaf error) error {
		return &diskcopy.CopyError{Side: diskcopy.Target, Err: fmt.Errorf("%w: %w", &client.StatusError{Status: n, Message: "no"}, leaf)}
	}
	inUse := fmt.Errorf("open x: %w", diskurl.ErrInUse)
	for _, c := range []struct {
		err          error
		want, unlike string
	}{
		{status(403, syscall.EACCES), "ask for a new one", "root"},
		{status(401, syscall.EACCES), "ask for a new one", "root"},
		{status(404, errors.New("x")), "check the URL", "path"},
		{status(507, syscall.ENOSPC), "free space", ""},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, "check the", "ticket"},
		{fmt.Errorf("target: %w", inUse), "end the other user", "force-share"},
		{fmt.Errorf("source: %w", inUse), "--force-share", ""},
	} {
		if got := advise(c.err); !strings.Contains(got, c.want) || c.unlike != "" && strings.Contains(got, c.unlike) {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}

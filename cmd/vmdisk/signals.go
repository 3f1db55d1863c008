package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// sameSignal is how long a signal that follows another is taken for the same one:
// timeout(1) sends its signal to the process and once more to the group, and a copy that
// was ended by both left no word and no checkpoint.
const sameSignal = 500 * time.Millisecond

// signalledError is why the work was ended, by a signal.
type signalledError struct{ signal syscall.Signal }

func (s *signalledError) Error() string { return s.signal.String() }

// untilSignal returns a context that SIGINT or SIGTERM ends. A second signal, a moment
// later, ends the process at once.
func untilSignal() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals, done, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			number, _ := s.(syscall.Signal)
			cancel(&signalledError{number})
		case <-done:
			return
		}
		select {
		case <-time.After(sameSignal):
			signal.Stop(signals)
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		signal.Stop(signals)
		cancel(nil)
	}
}

// statusSignal is what shells add to the number of the signal that ended a command.
const statusSignal = 128

// signalStatus is the exit status of work that a signal ended, 0 if none did.
func signalStatus(ctx context.Context, err error) int {
	var s *signalledError
	if errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &s) {
		return statusSignal + int(s.signal)
	}
	return 0
}

// exit ends the process. After a signal it ends by that signal, so that a shell's loop
// or script ends as well: a shell goes on after a command that exits by itself, be it
// with 130. Either way $? is 130 after SIGINT and 143 after SIGTERM.
func exit(status int) {
	if s := syscall.Signal(status - statusSignal); s == syscall.SIGINT || s == syscall.SIGTERM {
		signal.Reset(s)
		_ = syscall.Kill(os.Getpid(), s)
		time.Sleep(sameSignal) // the signal is ignored, or this is the first process of a container
	}
	os.Exit(status)
}

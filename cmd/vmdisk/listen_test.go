package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stale leaves a socket that nobody listens on, as a crashed server does.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	// A process that another test starts at this moment holds it until its exec.
	for {
		c, err := net.Dial("unix", path)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			c.Close()
		}
		time.Sleep(time.Millisecond)
	}
}

// TestManyStarts: of servers that start at once on the path of a crashed one, a
// single one announces it, and it is the one that clients reach; those that lose
// say so and take nothing away.
func TestManyStarts(t *testing.T) {
	t.Parallel()
	const servers, rounds = 12, 4
	for round := range rounds {
		path := filepath.Join(t.TempDir(), "s")
		stale(t, path)
		var all []*exec.Cmd
		outs := make([]*lockedBuffer, 2*servers)
		for i := range outs {
			outs[i] = new(lockedBuffer)
		}
		for i := range servers {
			cmd := exec.Command("vmdisk", "serve", fmt.Sprintf("n%d=mem:%dM", i, i+1), "--nbd", "unix:"+path)
			cmd.Stdout, cmd.Stderr = outs[2*i], outs[2*i+1]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			all = append(all, cmd)
		}
		var ended sync.WaitGroup
		status := make(chan int, servers)
		for _, cmd := range all {
			ended.Go(func() {
				_ = cmd.Wait()
				status <- cmd.ProcessState.ExitCode()
			})
		}
		lost := 0
		for deadline := time.After(time.Minute); lost < servers-1; lost++ {
			select {
			case s := <-status:
				if s != statusFailed {
					t.Errorf("a server that lost ended with status %d", s)
				}
				continue
			case <-deadline:
			}
			t.Errorf("%d servers go on", servers-lost)
			break
		}
		await(t, "the one that is left to announce", func() bool {
			return slices.ContainsFunc(outs, func(b *lockedBuffer) bool { return strings.Contains(b.String(), "serving") })
		})
		announced := 0
		for i := range servers {
			if strings.Contains(outs[2*i].String(), "serving") {
				announced++
				if out, err := exec.Command("vmdisk", "info", "--list", "nbd+unix:///?socket="+path).CombinedOutput(); err != nil || !strings.Contains(string(out), fmt.Sprintf(`"n%d"`, i)) {
					t.Errorf("the server that announced export n%d is not the one at the path: %v %s", i, err, out)
				}
			} else if said := outs[2*i+1].String(); !strings.Contains(said, "another server answers there") {
				t.Errorf("a server that lost says %q", said)
			}
		}
		if announced != 1 {
			t.Errorf("round %d: %d servers announce the socket", round, announced)
		}
		for _, cmd := range all {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		ended.Wait()
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left behind")
		}
	}
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

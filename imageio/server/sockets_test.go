package server

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/internal/unixsock"
)

func quietConfig(t *testing.T, control string) *Config {
	cfg := DefaultConfig()
	cfg.TLS.Enable, cfg.Local.Enable = false, false
	cfg.Remote.Host, cfg.Remote.Port = "127.0.0.1", 0
	cfg.Control.Socket, cfg.Daemon.DropPrivileges = control, false
	cfg.Log.File = filepath.Join(t.TempDir(), "log")
	return cfg
}

// TestManyDaemons: of daemons that start at once on the control socket of a crashed
// one, a single one has it, and the others' end takes nothing away from it.
func TestManyDaemons(t *testing.T) {
	t.Parallel()
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "sock")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		const starts = 8
		got := make([]*Server, starts)
		var begin, done sync.WaitGroup
		begin.Add(1)
		for i := range starts {
			cfg := quietConfig(t, path)
			done.Go(func() {
				begin.Wait()
				got[i], _ = New(cfg, nil)
			})
		}
		begin.Done()
		done.Wait()
		won := 0
		for _, s := range got {
			if s == nil {
				continue
			}
			if won++; won == 1 {
				defer s.Close()
				continue
			}
			s.Close()
		}
		if won != 1 {
			t.Errorf("round %d: %d of %d daemons have the socket", round, won, starts)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("round %d: after the others' end: %v", round, err)
		}
		c.Close()
	}
}

// TestNotTheSuccessors: a daemon that ends leaves the socket of its successor.
func TestNotTheSuccessors(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sock")
	first, err := New(quietConfig(t, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := New(quietConfig(t, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestAbstractControl: tickets are installed by an abstract socket, which has no
// permissions, by root and the daemon's user alone.
func TestAbstractControl(t *testing.T) {
	t.Parallel()
	s, err := New(quietConfig(t, "\x00vmdisk-test-control"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	peers, err := s.controllers()
	if err != nil || len(peers) != 2 || peers[0] != 0 || peers[1] != os.Geteuid() {
		t.Errorf("users %v (%v)", peers, err)
	}
	name := "@vmdisk-test-control-open"
	if _, err := s.listenUnix(&name, 0o660, unixsock.Options{}); !errors.Is(err, unixsock.ErrOpenToAll) {
		t.Errorf("a control socket open to all: %v", err)
	}
}

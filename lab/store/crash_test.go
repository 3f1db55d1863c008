package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// Environment of a test binary that is started to be killed.
const (
	victimDir = "VMDISK_STORE_VICTIM" // its work folder
	victimAt  = "VMDISK_STORE_DIE_AT" // the number of the ledger's entry at which it kills itself
)

// victim makes disks with everything that can be left behind, until it is killed.
func victim(dir string) {
	s, err := Open(context.Background(), Options{Dir: dir, Size: 300 * mib, Data: mib, FileSystem: "xfs"})
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	at, err := strconv.Atoi(os.Getenv(victimAt))
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	s.ledger.added = func() {
		if at--; at == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	su := spec.Defaults()
	su.Backing, su.HostFS, su.Server, su.HostScheduler = "loop", "xfs", "qemu-nbd", "bfq"
	_, err = s.Prepare(context.Background(), su, spec.ClientHost, 2)
	fmt.Println("prepared", err)
	os.Exit(4) // without cleaning up
}

// TestKilled kills a process at every step of its work, and each time opens the
// store again.
func TestKilled(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needProgram(t, "mkfs.xfs", "qemu-nbd")
	seen := map[kind]int{}
	for at := 1; ; at++ {
		if done := killAt(t, at, seen); done || t.Failed() {
			break
		}
	}
	for k, least := range map[kind]int{kindPath: 5, kindLoop: 4, kindMount: 2, kindProcess: 2, kindScheduler: 1} {
		if seen[k] < least {
			t.Errorf("killed at %d entries of kind %s, want %d at least", seen[k], k, least)
		}
	}
}

// killAt reports true if the process came to its end before.
func killAt(t *testing.T, at int, seen map[kind]int) (done bool) {
	t.Helper()
	dir := workDir(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimAt+"="+strconv.Itoa(at))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("entry %d: %v\n%s", at, err, out)
	}
	if done = exit.ExitCode() == 4; done && !strings.Contains(string(out), "prepared <nil>") || !done && exit.ExitCode() != -1 {
		t.Fatalf("entry %d: %v\n%s", at, err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "ledger.json"))
	var left []entry
	if err == nil {
		err = json.Unmarshal(text, &left)
	}
	if err != nil || len(left) == 0 {
		t.Fatalf("entry %d: the ledger is no list of things left: %v", at, err)
	}
	if !done {
		seen[left[len(left)-1].Kind]++
	}
	s, err := Open(t.Context(), Options{Dir: dir, Size: 64 * mib, FileSystem: "none"})
	if err != nil {
		t.Fatalf("entry %d: open again: %v", at, err)
	}
	var kept []string
	for _, what := range leftIn(t, dir) {
		if name := filepath.Base(what); name != "lock" && name != "ledger.json" {
			kept = append(kept, what)
		}
	}
	if len(kept) > 0 {
		t.Errorf("entry %d: not undone: %q", at, kept)
	}
	// The folder was made by the process that was killed, and is kept.
	if err := errors.Join(s.Close(), os.Remove(dir)); err != nil {
		t.Errorf("entry %d: %v", at, err)
	}
	return done
}

// TestRecoverOnlyOurs has a ledger of things that meanwhile are somebody else's.
func TestRecoverOnlyOurs(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.CommandContext(t.Context(), "sleep", "1000")
	sleeper.SysProcAttr = childAttr()
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	ticks, err := startTicks(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}

	// The same id, and an earlier process.
	s := recoverFrom(t, entry{ID: 1, Kind: kindProcess, PID: sleeper.Process.Pid, Started: ticks - 1})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if now, err := startTicks(sleeper.Process.Pid); err != nil || now != ticks || zombie(sleeper.Process.Pid) {
		t.Error("a process that only has a recorded id was killed")
	}
	s = recoverFrom(t, entry{ID: 1, Kind: kindProcess, PID: sleeper.Process.Pid, Started: ticks})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the recorded process still runs")
	}

	for _, e := range []entry{
		{ID: 1, Kind: kindPath, Path: outside}, {ID: 1, Kind: kindMount, Path: filepath.Dir(outside)}, {ID: 1, Kind: kindLoop, Path: outside},
		{ID: 1, Kind: kindScheduler, Path: outside, Name: "none"}, {ID: 1, Kind: kindTarget, Name: "../x naa.5"},
		{ID: 1, Kind: kindVG, Name: "vg0", Path: outside}, {ID: 1, Kind: kindPool, Name: "tank", Path: outside}, {ID: 1, Kind: "new"},
	} {
		dir := ledgerOf(t, e)
		if _, err := Open(t.Context(), Options{Dir: dir, Size: mib, FileSystem: "none"}); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line", e, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

// ledgerOf makes a folder as a killed run would have left it.
func ledgerOf(t *testing.T, entries ...entry) string {
	t.Helper()
	dir := workDir(t)
	text, err := json.Marshal(entries)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ledger.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func recoverFrom(t *testing.T, entries ...entry) *Store {
	t.Helper()
	dir := ledgerOf(t, entries...)
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return newStore(t, Options{Dir: dir})
}

func TestBadLedger(t *testing.T) {
	t.Parallel()
	dir := ledgerOf(t)
	path := filepath.Join(dir, "ledger.json")
	if err := os.WriteFile(path, []byte(`[{"id": "x"`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: dir, Size: mib, FileSystem: "none"})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names %s", err, path)
	}
	if _, statErr := os.Stat(path); statErr != nil {
		t.Errorf("the ledger that was not understood is gone: %v", statErr)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	s := newStore(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir, Size: mib, FileSystem: "none"})
	want := fmt.Sprintf("%s is in use by process %d", dir, os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v, want one line with %q", err, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), Options{Dir: dir, Size: mib, FileSystem: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

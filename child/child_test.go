package child

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is a parent that starts a child and is killed, when asked to be one.
func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_PARENT") == "" {
		os.Exit(m.Run())
	}
	p, err := Start(exec.Command("sleep", "1000"), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	select {}
}

// TestDiesWithParent: a parent that is killed leaves nothing.
func TestDiesWithParent(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CHILD_TEST_PARENT=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := parent.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-parent.Done()
	for gone := false; !gone; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		gone = err != nil || bytes.Contains(state, []byte(") Z "))
	}
}

// TestLivesOn: the child does not die with the thread that asked for it.
func TestLivesOn(t *testing.T) {
	t.Parallel()
	var p *Process
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		var err error
		p, err = Start(exec.Command("sleep", "0.3"), nil)
		started <- err
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}

func TestGroupAndErrors(t *testing.T) {
	t.Parallel()
	var out Tail
	cmd := exec.Command("sh", "-c", "echo begun; sleep 1000 & wait")
	cmd.Stdout = &out
	p, err := Start(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	for out.String() == "" {
		time.Sleep(time.Millisecond)
	}
	if p.Ended() || p.Err() != nil {
		t.Error("it has not ended")
	}
	if err := p.KillGroup(); err != nil {
		t.Fatal(err)
	}
	<-p.Done() // with the sleeping grandchild, which held the output
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	if _, err := Start(exec.Command("/no/such/program"), nil); err == nil || !strings.HasPrefix(err.Error(), "start /no/such/program: ") {
		t.Errorf("%v", err)
	}
}

// TestCPUs: the child runs where it was told to, and an impossible set is an error.
func TestCPUs(t *testing.T) {
	t.Parallel()
	var mine, one, none unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if mine.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	var out Tail
	cmd := exec.Command("sh", "-c", "grep Cpus_allowed_list /proc/self/status")
	cmd.Stdout = &out
	p, err := Start(cmd, &one)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if list := strings.Fields(out.String()); len(list) != 2 || strings.ContainsAny(list[1], ",-") {
		t.Errorf("%q", out.String())
	}
	if _, err := Start(exec.Command("true"), &none); err == nil {
		t.Error("no CPU at all was possible")
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var tail Tail
	for range tailBytes/1000 + 2 {
		if n, err := tail.Write(bytes.Repeat([]byte("x"), 1000)); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
	}
	fmt.Fprint(&tail, "end")
	if s := tail.String(); len(s) != tailBytes || !strings.HasSuffix(s, "xend") {
		t.Errorf("%d bytes, ends with %q", len(s), s[len(s)-5:])
	}
}

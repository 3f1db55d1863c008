package vm

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a QEMU that dies with this program.
type process struct {
	cmd    *exec.Cmd
	output tail
	done   chan struct{} // closed when it has been waited for
	err    error         // of Wait; valid after done
}

// outputDelay bounds the wait for output of a process that ended: somebody else
// may hold its pipe.
const outputDelay = time.Second

// start runs a program with dir for its temporary files, on the given CPUs if any.
//
// The kernel sends the death signal when the thread that forked ends, not the
// process, and Go ends threads; so one thread is kept for it as long as it runs.
// The affinity is that thread's, inherited; a thread that was pinned is not used
// again.
func start(words []string, dir string, cpus *unix.CPUSet) (*process, error) {
	p := &process{cmd: exec.Command(words[0], words[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.WaitDelay = outputDelay
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if cpus == nil {
			defer runtime.UnlockOSThread()
		} else if err := unix.SchedSetaffinity(0, cpus); err != nil {
			started <- fmt.Errorf("run on the CPUs of the NUMA node: %w", err)
			return
		}
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", words[0], err)
	}
	return p, nil
}

// killDelay is how long the kernel has to end a killed process, which may wait
// for storage.
const killDelay = 30 * time.Second

// kill ends the process and its children at once and waits for it.
func (p *process) kill() error {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	select {
	case <-p.done:
		return nil
	case <-time.After(killDelay):
		return fmt.Errorf("process %d was killed %v ago and has not ended: its storage may hang", p.cmd.Process.Pid, killDelay)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// complaint is the last line that QEMU printed, without its name.
func (p *process) complaint() string {
	lines := strings.Split(strings.TrimSpace(p.output.String()), "\n")
	return strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), QEMU+": ")
}

// ending says how the process ended; valid after done.
func (p *process) ending() string {
	how := "ended"
	if p.err != nil {
		how = fmt.Sprintf("ended (%v)", p.err)
	}
	if text := p.complaint(); text != "" {
		return how + ": " + text
	}
	return how
}

// tail keeps the last bytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailBytes; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

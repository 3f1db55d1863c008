package vm

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/child"
)

// process is a QEMU that dies with this program.
type process struct {
	*child.Process
	output *child.Tail
}

// outputDelay bounds the wait for output of a process that ended: somebody else
// may hold its pipe.
const outputDelay = time.Second

// start runs a program with dir for its temporary files, on the given CPUs if any.
func start(words []string, dir string, cpus *unix.CPUSet) (*process, error) {
	var output child.Tail
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.WaitDelay = outputDelay
	p, err := child.Start(cmd, cpus)
	if err != nil {
		return nil, err
	}
	return &process{p, &output}, nil
}

// killDelay is how long the kernel has to end a killed process, which may wait
// for storage.
const killDelay = 30 * time.Second

// kill ends the process and its children at once and waits for it.
func (p *process) kill() error {
	_ = p.KillGroup()
	select {
	case <-p.Done():
		return nil
	case <-time.After(killDelay):
		return fmt.Errorf("process %d was killed %v ago and has not ended: its storage may hang", p.PID(), killDelay)
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
	if err := p.Err(); err != nil {
		how = fmt.Sprintf("ended (%v)", err)
	}
	if text := p.complaint(); text != "" {
		return how + ": " + text
	}
	return how
}

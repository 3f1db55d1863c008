package vm

import (
	"io"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/vmdisk/vmdisk/child"
)

// consoleLines is how much of a console is worth reading in a report: the registers
// and calls of a panic are 50 lines, and what it is about stands before them.
const consoleLines = 100

// console is the end of what a guest's kernel printed. What it prints it decides, so it
// goes into no file of the host, which it could fill. Safe for concurrent use.
type console struct {
	tail  child.Tail
	ended chan struct{}

	mu   sync.Mutex
	conn net.Conn
}

func newConsole() *console { return &console{ended: make(chan struct{})} }

// keep reads the console until QEMU ends or close is called.
func (c *console) keep(conn net.Conn) {
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	go func() {
		defer close(c.ended)
		_, _ = io.Copy(&c.tail, conn)
	}()
}

func (c *console) kept() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// drained waits until all that an ended QEMU left was read, somebody else may hold its end.
func (c *console) drained(limit time.Duration) {
	if c.kept() == nil {
		return
	}
	select {
	case <-c.ended:
	case <-time.After(limit):
	}
}

func (c *console) close() {
	if conn := c.kept(); conn != nil {
		_ = conn.Close()
		<-c.ended
	}
}

// String is its last lines, as plain text.
func (c *console) String() string { return lastLines(c.tail.String(), consoleLines) }

// lastLines returns the end of a terminal's output as plain text: a guest decides
// what comes, and a terminal would obey it.
func lastLines(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return -1
	}, s)
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// telling picks the line of a console that says what went wrong.
func telling(console string) string {
	lines := strings.Split(console, "\n")
	for _, sign := range []string{"Kernel panic", "Oops", "BUG:", "Out of memory", "vmdisk:"} {
		for _, line := range lines {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

package interop

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// TestServeRun: a peer is run against our server and its exit status passed on.
func TestServeRun(t *testing.T) {
	t.Parallel()
	image := holey(t, 1<<20, 1)
	out := filepath.Join(tempDir(t), "out")
	ours(t, "serve", "--read-only", "raw:"+image, "--run", `nbdcopy "$uri" `+out)
	sameFiles(t, image, out)
	fail(t, 7, bin(t), "serve", "raw:"+image, "--run", "exit 7")
}

// TestNbdkitInFront: nbdkit's own client, with a filter, between ours.
func TestNbdkitInFront(t *testing.T) {
	t.Parallel()
	image := holey(t, 8<<20, 2)
	target := empty(t, 8<<20)
	back := serve(t, "raw:"+target)
	front := nbdkit(t, "--filter=readahead", "nbd", "uri="+back.URI())
	ours(t, "copy", "--verify", "raw:"+image, front.URI())
	stop(t, front)
	stop(t, back)
	sameFiles(t, image, target)
}

// slowCopy starts a copy that takes seconds, and waits until it has begun. The delay is
// in the copy: nbdkit (1.32) at times aborts when its client goes while its own filter delays.
func slowCopy(t *testing.T, image, target, server string) *peer.Proc {
	t.Helper()
	p, err := peer.Start("copy", []string{bin(t), "copy", "--progress", "none", "--request-size", "64K", "--queue-depth", "2", "--connections", "1", "--src-filter", "delay:read=25ms", server, "raw:" + target}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	eventually(t, "the copy begins to write "+target+" for "+image, func() bool {
		parts, _ := filepath.Glob(target + "*")
		for _, part := range parts {
			if st, err := os.Stat(part); err == nil && st.Size() >= 1<<20 && allocated(t, part) > 0 {
				return true
			}
		}
		return false
	})
	return p
}

// TestCopyInterrupted: stopped by SIGINT or killed, a copy leaves nothing that
// looks whole, and goes on with --resume to a whole one.
func TestCopyInterrupted(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			image := holey(t, 16<<20, 3)
			s := nbdkit(t, "-r", "file", image)
			target := filepath.Join(tempDir(t), "target")
			p := slowCopy(t, image, target, s.URI())
			time.Sleep(300 * time.Millisecond)
			if err := p.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if sig == syscall.SIGINT { // timeout(1) and terminals may send it twice
				time.Sleep(5 * time.Millisecond)
				_ = p.Signal(sig) // unless it has ended
			}
			if err := p.Wait(); err == nil {
				t.Fatal("the copy ended before it was stopped: the test proves nothing")
			}
			if sig != syscall.SIGKILL {
				oneLine(t, p.Stderr())
			}
			if _, err := os.Stat(target); err == nil {
				t.Error("a partial copy has the name of a whole one")
			}
			ours(t, "copy", "--resume", "--verify", s.URI(), "raw:"+target)
			sameFiles(t, image, target)
			if left, _ := filepath.Glob(target + ".*"); len(left) != 0 {
				t.Errorf("left behind: %s", strings.Join(left, " "))
			}
		})
	}
}

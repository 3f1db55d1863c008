package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// TestCopyFromNbdkit: our client reads what nbdkit serves, whatever the server
// lacks or demands; nbdcopy says what is right.
func TestCopyFromNbdkit(t *testing.T) {
	t.Parallel()
	image := holey(t, 5<<20+512, 1)
	for _, c := range []struct {
		name string
		args []string
	}{
		{"file", []string{"file", image}},
		{"pattern", []string{"pattern", "size=3M"}},
		{"data", []string{"data", "data=1 2 3 @0x100000 ( 0x55 0xAA )*4096 @0x1fffff 9"}},
		{"sparse-random", []string{"sparse-random", "size=64M", "seed=42"}},
		{"no structured replies", []string{"--no-sr", "file", image}},
		{"oldest handshake", []string{"--mask-handshake=0", "file", image}},
		{"no multi-conn", []string{"--filter=multi-conn", "file", image, "multi-conn-mode=disable"}},
		{"one at a time", []string{"--filter=noparallel", "file", image, "serialize=all-requests"}},
		{"no extents", []string{"--filter=noextents", "file", image}},
		{"large blocks", []string{"--filter=blocksize-policy", "file", image, "blocksize-minimum=512", "blocksize-preferred=64K", "blocksize-maximum=64K", "blocksize-error-policy=error"}},
		{"small pieces", []string{"--filter=blocksize", "file", image, "maxdata=4K"}},
		{"slow", []string{"--filter=delay", "file", image, "delay-read=20ms"}},
		{"some errors", []string{"--filter=retry-request", "--filter=error", "file", image, "error-pread-rate=5%", "retry-request-retries=9", "retry-request-delay=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := nbdkit(t, append([]string{"-r"}, c.args...)...)
			dir := tempDir(t)
			want, got := image, filepath.Join(dir, "got")
			if !slices.Contains(c.args, image) {
				want = filepath.Join(dir, "want")
				run(t, "nbdcopy", s.URI(), want)
			}
			ours(t, "copy", "--verify", s.URI(), "raw:"+got)
			sameFiles(t, want, got)
			ours(t, "compare", s.URI(), "raw:"+got)
		})
	}
}

// TestCopyToNbdkit: our client writes to servers of many kinds.
func TestCopyToNbdkit(t *testing.T) {
	t.Parallel()
	const size = 4<<20 + 4096
	image := holey(t, size, 2)
	for _, c := range []struct {
		name string
		args []string // TARGET is a file full of 0xff
	}{
		{"memory", []string{"memory", fmt.Sprint(size)}},
		{"file", []string{"file", "TARGET"}},
		{"larger", []string{"memory", "64M"}},
		{"no zero", []string{"--filter=nozero", "file", "TARGET"}},
		{"emulated zero", []string{"--filter=nozero", "file", "TARGET", "zeromode=emulate"}},
		{"no trim", []string{"--filter=nozero", "file", "TARGET", "zeromode=notrim"}},
		{"a liar", []string{"--filter=nozero", "file", "TARGET", "zeromode=emulate", "fastzeromode=ignore"}},
		{"slow zero", []string{"--filter=nozero", "file", "TARGET", "fastzeromode=slow"}},
		{"no extents", []string{"--filter=noextents", "file", "TARGET"}},
		{"no FUA", []string{"--filter=fua", "file", "TARGET"}},
		{"blocks of 4 KiB", []string{"--filter=blocksize-policy", "file", "TARGET", "blocksize-minimum=4K", "blocksize-preferred=4K", "blocksize-maximum=128K", "blocksize-error-policy=error"}},
		{"no structured replies", []string{"--no-sr", "file", "TARGET"}},
		{"no multi-conn", []string{"--filter=multi-conn", "file", "TARGET", "multi-conn-mode=disable"}},
		{"one at a time", []string{"--filter=noparallel", "file", "TARGET"}},
		{"cached", []string{"--filter=cache", "file", "TARGET", "cache=writeback"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := ones(t, size)
			args := append([]string(nil), c.args...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "TARGET", target)
			}
			s := nbdkit(t, args...)
			ours(t, "copy", "raw:"+image, s.URI())
			if strings.Contains(strings.Join(args, " "), target) {
				// All acknowledged: a crash of the server after the copy loses nothing.
				s.Kill()
				sameFiles(t, image, target)
				return
			}
			out := filepath.Join(tempDir(t), "out")
			run(t, "nbdcopy", s.URI(), out)
			if err := os.Truncate(out, size); err != nil {
				t.Fatal(err)
			}
			sameFiles(t, image, out)
		})
	}
}

// ones makes a file of size bytes of 0xff.
func ones(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "target")
	if err := os.WriteFile(path, []byte(strings.Repeat("\xff", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCopyWithQemuNBD: our client against qemu-nbd, raw and qcow2.
func TestCopyWithQemuNBD(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	image := holey(t, size, 3)
	dir := tempDir(t)
	qcow2 := filepath.Join(dir, "qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", qcow2, fmt.Sprint(size))
	s := qemuNBD(t, "-f", "qcow2", "--discard=unmap", "--detect-zeroes=unmap", qcow2)
	ours(t, "copy", "--verify", "raw:"+image, s.URI())
	stop(t, s)
	run(t, "qemu-img", "check", "-q", qcow2)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, qcow2)

	s = qemuNBD(t, "-r", "-f", "qcow2", "-A", qcow2)
	out := filepath.Join(dir, "out")
	ours(t, "copy", s.URI(), "raw:"+out)
	sameFiles(t, image, out)
	var extents []struct {
		Offset, Length int64
		Zero           bool
	}
	unmarshal(t, ours(t, "map", "--json", s.URI()), &extents)
	if len(extents) != size/piece {
		t.Errorf("map has %d extents, want %d", len(extents), size/piece)
	}
	for i, e := range extents {
		if e.Offset != int64(i)*piece || e.Length != piece || e.Zero != (i%2 == 1) {
			t.Fatalf("extent %d is %+v", i, e)
		}
	}
}

// TestClientErrors: what goes wrong at the other end is one line and exit
// status 1, and no file is left that looks like a whole copy.
func TestClientErrors(t *testing.T) {
	t.Parallel()
	image := holey(t, 4<<20, 4)
	for _, c := range []struct {
		name string
		args []string
		to   bool // copy to the server
		want string
	}{
		{"read errors", []string{"-r", "--filter=error", "file", image, "error-pread-rate=1"}, false, "read"},
		{"write errors", []string{"--filter=error", "memory", "4M", "error-pwrite-rate=1"}, true, "write"},
		{"ENOSPC", []string{"full", "4M"}, true, "space"},
		{"read-only", []string{"-r", "memory", "4M"}, true, "read-only"},
		{"too small", []string{"memory", "1M"}, true, "small"},
		{"no such export", []string{"--filter=exportname", "memory", "1M", "exportname=only", "exportname-strict=true"}, false, "export"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := nbdkit(t, c.args...)
			out := filepath.Join(tempDir(t), "out")
			argv := []string{bin(t), "copy", "--progress", "none", s.URI(), "raw:" + out}
			if c.to {
				argv = []string{bin(t), "copy", "--progress", "none", "raw:" + image, s.URI()}
			}
			msg := fail(t, 1, argv...)
			oneLine(t, msg)
			if !strings.Contains(strings.ToLower(msg), c.want) {
				t.Errorf("the message does not say %q: %s", c.want, msg)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("a partial copy was left under the name of a whole one")
			}
		})
	}
}

// TestCopySurvivesServer: the server loses what it had not flushed, in the
// middle of a copy, and comes back: the copy ends well and is whole, or it fails.
func TestCopySurvivesServer(t *testing.T) {
	t.Parallel()
	image := holey(t, 32<<20, 5)
	for _, c := range []struct {
		name  string
		start func(t *testing.T, target string) *peer.Server
	}{
		{"nbdkit, write-back cache", func(t *testing.T, target string) *peer.Server {
			return nbdkit(t, "--filter=cache", "--filter=delay", "file", target, "cache=writeback", "delay-write=5ms", "delay-read=10ms")
		}},
		{"vmdisk, volatile", func(t *testing.T, target string) *peer.Server {
			return serve(t, "--filter", "delay:write=10ms", "--filter", "volatile", "raw:"+target)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := empty(t, 32<<20)
			s := c.start(t, target)
			p, err := peer.Start("copy", []string{bin(t), "copy", "--progress", "none", "--request-size", "64K", "--queue-depth", "2", "--connections", "1", "raw:" + image, s.URI()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Kill)
			for range 2 {
				time.Sleep(250 * time.Millisecond)
				select {
				case <-p.Done():
					t.Fatal("the copy ended before the server was killed: the test proves nothing")
				default:
				}
				s.Kill()
				if err := s.Restart(); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Wait(); err != nil {
				t.Fatalf("the copy did not survive: %v", err)
			}
			s.Kill() // and now loses nothing
			sameFiles(t, image, target)
		})
	}
}

// TestServerGoneForGood: a copy whose server does not come back ends with an
// error. (Reconnecting is tried for a minute, so this is a test of a minute.)
func TestServerGoneForGood(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits a minute")
	}
	image := holey(t, 32<<20, 6)
	s := nbdkit(t, "--filter=delay", "memory", "32M", "delay-write=20ms")
	p, err := peer.Start("copy", []string{bin(t), "copy", "--progress", "none", "--request-size", "64K", "raw:" + image, s.URI()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	time.Sleep(200 * time.Millisecond)
	s.Kill()
	if err := p.Wait(); err == nil {
		t.Error("the copy succeeded without a server")
	}
	oneLine(t, p.Stderr())
}

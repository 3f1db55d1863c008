package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/interop/guest"
	"github.com/vmdisk/vmdisk/interop/peer"
)

const (
	nbd0     = "/dev/nbd0"
	guestDir = "/mnt"
	// waitServer is how long the guest's kernel holds requests back while the
	// server is away.
	waitServer = 2 * time.Minute
)

// newImage makes a sparse file with an empty ext4 file system.
func newImage(t *testing.T, size int64) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "fs.img")
	sparseFile(t, image, size)
	run(t, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
	return image
}

func sparseFile(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkClean fails unless the file system in the image needs no repair at all.
func checkClean(t *testing.T, image string) {
	t.Helper()
	if err := fsck(t, image); err != nil {
		t.Errorf("the file system is damaged: %v", err)
	}
}

func fsck(t *testing.T, image string) error {
	r, err := peer.Run(t.Context(), "e2fsck", "-fn", image)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, r.Stdout)
	}
	return nil
}

func boot(t *testing.T) *guest.Guest {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the guest runs the host's kernel on an emulated x86 machine")
	}
	g, err := guestKit(t).Boot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// TestGuestUses: the guest's kernel makes a file system on our export, works on
// it and finds everything again; the host finds it clean.
func TestGuestUses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := filepath.Join(t.TempDir(), "fs.img")
	sparseFile(t, image, 256<<20)
	s := serve(t, "raw:"+image)
	g := boot(t)
	ctx := t.Context()
	files := guest.Files{Dir: guestDir, Count: 30, Size: 100_000, Seed: 1}

	steps(t, g, []step{
		{"connect", func() error { return g.Connect(ctx, nbd0, s.Socket, "", 0) }},
		{"mke2fs", func() error { _, err := g.Run(ctx, "mke2fs", "-q", "-t", "ext4", nbd0); return err }},
		{"mount", func() error { return g.Mount(ctx, nbd0, guestDir) }},
		{"write", func() error { return g.Write(ctx, files, nil) }},
		{"exercise", func() error { return g.Exercise(ctx, guestDir+"/x", 400, 3<<20, 7) }},
		{"unmount", func() error { return g.Unmount(ctx, guestDir) }},
		{"e2fsck", func() error { _, err := g.Run(ctx, "e2fsck", "-fn", nbd0); return err }},
		{"disconnect", func() error { return g.Disconnect(ctx, nbd0) }},
		{"connect again", func() error { return g.Connect(ctx, nbd0, s.Socket, "", 0) }},
		{"mount again", func() error { return g.Mount(ctx, nbd0, guestDir) }},
		{"verify", func() error { return verify(ctx, g, files) }},
		{"unmount at last", func() error { return g.Unmount(ctx, guestDir) }},
	})
	stop(t, s)
	checkClean(t, image)
}

type step struct {
	name string
	do   func() error
}

// steps does the steps in turn and shows the guest's console with a failure.
func steps(t *testing.T, g *guest.Guest, list []step) {
	t.Helper()
	for _, s := range list {
		start := time.Now()
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v\nconsole: %s", s.name, err, g.Console())
		}
		t.Logf("%-16s %v", s.name, time.Since(start).Round(time.Millisecond))
	}
}

func verify(ctx context.Context, g *guest.Guest, files guest.Files) error {
	if err := g.DropCaches(ctx); err != nil {
		return err
	}
	bad, err := g.Verify(ctx, files)
	if err == nil && bad != "" {
		first, _, _ := strings.Cut(bad, "\n")
		err = lostError(fmt.Sprintf("%d of %d files are damaged: %s ...", strings.Count(bad, "\n")+1, files.Count, first))
	}
	return err
}

// lostError says that files which had been synced are not intact.
type lostError string

func (e lostError) Error() string { return string(e) }

// mustLose checks what a crash test said of a server that never flushes.
func mustLose(t *testing.T, err error) {
	t.Helper()
	var lost lostError
	switch {
	case err == nil:
		t.Error("a server that never flushed lost nothing: the test proves nothing")
	case !errors.As(err, &lost):
		t.Errorf("failed for another reason than lost files: %v", err)
	default:
		t.Logf("as it must be: %v", err)
	}
}

// The servers of the crash tests: those that keep writes in memory until they
// are flushed, and one that never flushes, with which the tests must fail.
func volatileServer(t *testing.T, image string) *peer.Server {
	return serve(t, "--filter", "volatile", "raw:"+image)
}

func lyingServer(t *testing.T, image string) *peer.Server {
	return nbdkit(t, "--filter=cache", "file", image, "cache=unsafe")
}

// TestGuestSurvivesKill: the server loses with SIGKILL all that was not
// flushed, comes back, and the guest, which stays up and mounted with its
// requests waiting, finds every file that it synced.
func TestGuestSurvivesKill(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := newImage(t, 128<<20)
	if err := killWhileMounted(t, image, volatileServer(t, image)); err != nil {
		t.Error(err)
	}
	checkClean(t, image)
}

// TestGuestSurvivesKillNegative: the same with a server that never flushes
// fails, so the test above is able to.
func TestGuestSurvivesKillNegative(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := newImage(t, 128<<20)
	mustLose(t, killWhileMounted(t, image, lyingServer(t, image)))
}

// killWhileMounted kills the server between two rounds of synced files, twice.
// (Not in the middle of one: the kernel's client sends again only what was not
// answered, so it loses answered writes that no flush had followed.)
func killWhileMounted(t *testing.T, image string, s *peer.Server) error {
	ctx := t.Context()
	g := boot(t)
	const rounds, each = 3, 15
	files := guest.Files{Dir: guestDir, Size: 30_000, Seed: 2, Count: each}
	if err := g.Connect(ctx, nbd0, s.Socket, "", waitServer); err != nil {
		return err
	}
	if err := g.Mount(ctx, nbd0, guestDir); err != nil {
		return err
	}
	for round := range rounds {
		files.First = round * each
		if err := g.Write(ctx, files, nil); err != nil {
			return err
		}
		if round == rounds-1 {
			break
		}
		s.Kill()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := verify(ctx, g, guest.Files{Dir: guestDir, Size: files.Size, Seed: files.Seed, Count: files.First + each}); err != nil {
			return err
		}
	}
	n, err := g.Reconnects(ctx, nbd0)
	if err != nil {
		return err
	}
	if n != rounds-1 {
		return fmt.Errorf("the guest connected again %d times, want %d", n, rounds-1)
	}
	if err := g.Unmount(ctx, guestDir); err != nil {
		return err
	}
	if err := g.Disconnect(ctx, nbd0); err != nil {
		return err
	}
	stop(t, s)
	return fsck(t, image)
}

// TestGuestPowerLoss: the server is killed in the middle of the guest's writes
// and the guest's mount dies with it. A new guest finds, after the journal's
// recovery, every file whose sync had returned.
func TestGuestPowerLoss(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := newImage(t, 128<<20)
	if err := killWhileWriting(t, image, volatileServer(t, image), 25); err != nil {
		t.Error(err)
	}
}

// TestGuestPowerLossNegative: with a server that never flushes it fails.
func TestGuestPowerLossNegative(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := newImage(t, 128<<20)
	mustLose(t, killWhileWriting(t, image, lyingServer(t, image), 25))
}

// killWhileWriting kills the server as soon as the guest has synced after files.
func killWhileWriting(t *testing.T, image string, s *peer.Server, after int) error {
	ctx := t.Context()
	g := boot(t)
	if err := g.Connect(ctx, nbd0, s.Socket, "", 0); err != nil {
		t.Fatal(err)
	}
	if err := g.Mount(ctx, nbd0, guestDir); err != nil {
		t.Fatal(err)
	}
	synced := 0
	files := guest.Files{Dir: guestDir, Count: 100_000, Size: 50_000, Seed: 3}
	err := g.Write(ctx, files, func(n int) {
		if synced = n; n == after {
			_ = s.Signal(os.Kill)
		}
	})
	if err == nil {
		t.Fatal("the guest wrote everything although its server was killed")
	}
	g.Close()
	s.Kill()
	t.Logf("%d files were synced when the server was gone", synced)

	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	files.Count = synced
	err = recoverAndVerify(ctx, boot(t), s.Socket, files)
	if err != nil {
		return err
	}
	stop(t, s)
	return fsck(t, image)
}

func recoverAndVerify(ctx context.Context, g *guest.Guest, socket string, files guest.Files) error {
	if err := g.Connect(ctx, nbd0, socket, "", 0); err != nil {
		return err
	}
	if err := g.Mount(ctx, nbd0, guestDir); err != nil {
		return err
	}
	if err := verify(ctx, g, files); err != nil {
		return err
	}
	if err := g.Unmount(ctx, guestDir); err != nil {
		return err
	}
	return g.Disconnect(ctx, nbd0)
}

// TestGuestNBDClient: nbd-client attaches our export, with several connections
// and with one, and the server is killed in between.
// (Its -persist is of no use here: version 3.24 gives the kernel no time to wait
// for a new connection, so whatever is asked meanwhile fails. The agent's own
// client, in the tests above, does give it.)
func TestGuestNBDClient(t *testing.T) {
	t.Parallel()
	needRoot(t)
	image := newImage(t, 128<<20)
	s := volatileServer(t, image)
	g := boot(t)
	ctx := t.Context()
	addr, err := g.Forward(s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(addr, ":")
	attach := func(flags ...string) error {
		_, err := g.Run(ctx, append([]string{"nbd-client", host, port, nbd0, "-b", "4096", "-timeout", "60"}, flags...)...)
		return err
	}
	detach := func() error {
		_, err := g.Run(ctx, "nbd-client", "-d", nbd0)
		return err
	}
	files := guest.Files{Dir: guestDir, Count: 20, Size: 30_000, Seed: 4}
	more := files
	more.First = files.Count
	steps(t, g, []step{
		{"attach", func() error { return attach("-connections", "4") }},
		{"mount", func() error { return g.Mount(ctx, nbd0, guestDir) }},
		{"write", func() error { return g.Write(ctx, files, nil) }},
		{"unmount", func() error { return g.Unmount(ctx, guestDir) }},
		{"detach", detach},
		{"kill", func() error { s.Kill(); return s.Restart() }},
		{"attach again", func() error { return attach() }},
		{"mount again", func() error { return g.Mount(ctx, nbd0, guestDir) }},
		{"verify", func() error { return verify(ctx, g, files) }},
		{"write more", func() error { return g.Write(ctx, more, nil) }},
		{"verify more", func() error { return verify(ctx, g, more) }},
		{"verify all", func() error { return verify(ctx, g, files) }},
		{"unmount", func() error { return g.Unmount(ctx, guestDir) }},
	})
	stop(t, s)
	checkClean(t, image)
}

// TestGuestRealImage: a kernel reads the real guest's files over our server; the
// checksums that its package manager keeps are right.
func TestGuestRealImage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs the real image")
	}
	needRoot(t)
	image, err := peer.RealImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "--filter", "cow", "raw:"+image)
	g := boot(t)
	ctx := t.Context()
	before, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	steps(t, g, []step{
		{"connect", func() error { return g.Connect(ctx, nbd0, s.Socket, "", 0) }},
		{"mount", func() error { return g.Mount(ctx, nbd0, guestDir) }},
		{"md5sum", func() error {
			_, err := g.Run(ctx, "chroot", guestDir, "/bin/sh", "-c",
				"cd / && md5sum --quiet -c var/lib/dpkg/info/coreutils.md5sums var/lib/dpkg/info/libc6:*.md5sums var/lib/dpkg/info/perl-base.md5sums")
			return err
		}},
		{"unmount", func() error { return g.Unmount(ctx, guestDir) }},
	})
	stop(t, s)
	if after, err := os.Stat(image); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Error("the image below the overlay was changed")
	}
}

package diskcopy

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
	"github.com/vmdisk/vmdisk/driver/nbd"
	"github.com/vmdisk/vmdisk/nbd/client"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// counting counts what goes past reading and writing.
type counting struct {
	*disk.Disk
	reads, sends int
}

func (c *counting) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.reads++
	return c.Disk.ReadAt(ctx, p, off)
}

func (c *counting) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	c.sends++
	return c.Disk.FileRange(off, n, write)
}

func (c *counting) Close() error { return nil }

// nbdTarget serves d and opens it.
func nbdTarget(t *testing.T, d *disk.Disk) *disk.Disk {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Exports: []server.Export{{Disk: d}}})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), l) }()
	remote, err := nbd.Open(context.Background(), nbd.Config{Client: client.Config{Network: "unix", Addr: socket}, NoReplay: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = remote.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return remote
}

// TestSend copies a file of dense data to a socket and to a file: most of it is
// never read by us, unless the zeros are to be found, or samples show that there
// are some.
func TestSend(t *testing.T) {
	t.Parallel()
	dir := hostfs.Mount(t, hostfs.Ext4, hostfs.Options{})
	const size = 64 * mib
	dense, zeros := newFile(t, filepath.Join(dir, "dense"), size), newFile(t, filepath.Join(dir, "zeros"), size)
	fill(t, dense, 0, size, 1)
	if err := zeros.WriteAt(context.Background(), make([]byte, size), 0, 0); err != nil {
		t.Fatal(err)
	}
	for i := int64(0); i < 64; i++ { // a quarter of the data is zeros
		fill(t, zeros, i*mib, mib*3/4, i)
	}
	for name, c := range map[string]struct {
		src     *disk.Disk
		o       Options
		target  string
		sent    bool
		written int64
	}{
		"socket":           {dense, Options{}, "nbd", true, size},
		"file":             {dense, Options{}, "file", true, size},
		"with zeros":       {zeros, Options{}, "nbd", false, size * 3 / 4},
		"with zeros, file": {zeros, Options{}, "file", false, size * 3 / 4},
		"search":           {dense, Options{SparseSize: 4096}, "nbd", false, size},
		"no search":        {zeros, Options{SparseSize: -1}, "nbd", true, size},
		"no clone":         {dense, Options{NoClone: true}, "file", false, size},
	} {
		c.o.Verify = false
		counted := &counting{Disk: c.src}
		var target *disk.Disk
		if c.target == "nbd" {
			target = nbdTarget(t, memDisk(t, size))
		} else {
			target = newFile(t, filepath.Join(dir, "out-"+name), size)
		}
		c.o.QueueDepth = 1 // counting has no lock
		st, err := Copy(context.Background(), target, disk.New(counted, "src"), c.o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if sent := counted.reads < 40; sent != c.sent {
			t.Errorf("%s: %d reads, %d sends", name, counted.reads, counted.sends)
		}
		if st.Write.Bytes != c.written {
			t.Errorf("%s: %d bytes written, want %d", name, st.Write.Bytes, c.written)
		}
		mustEqual(t, c.src, target)
	}
}

// TestSendAllocations: moving data in the kernel allocates nothing.
func TestSendAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations are not counted under the race detector")
	}
	dir := t.TempDir()
	src := newFile(t, filepath.Join(dir, "src"), 64*mib)
	fill(t, src, 0, 64*mib, 1)
	for name, dst := range map[string]*disk.Disk{"file": newFile(t, filepath.Join(dir, "dst"), 64*mib), "socket": nbdTarget(t, disk.New(&sink{remote{child: memDisk(t, 64*mib)}}, "sink"))} {
		o, err := Options{RequestSize: 128 << 10}.complete()
		if err != nil {
			t.Fatal(err)
		}
		e, err := newEngine(context.Background(), context.Background(), dst, src, o)
		if err != nil {
			t.Fatal(err)
		}
		defer e.close()
		if err := e.prepareZero(); err != nil {
			t.Fatal(err)
		}
		w := e.workers[0]
		got := testing.AllocsPerRun(300, func() {
			if !e.next(w) {
				t.Fatal("no task")
			}
			if err := w.doAll(); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations a request", name, got)
		}
		if e.sending.off.Load() {
			t.Errorf("%s: nothing was sent", name)
		}
	}
}

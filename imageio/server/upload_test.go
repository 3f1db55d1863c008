package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
	"github.com/vmdisk/vmdisk/driver/file"
)

// lender lends a file and counts what is written in the ordinary way.
type lender struct {
	*disk.Disk
	fd      int  // lent in place of the file's own, unless 0
	short   bool // lends half of what is asked for
	written atomic.Int64
}

func (l *lender) FileRange(off, n int64, write bool) (disk.FileRange, bool) {
	if l.short {
		n /= 2
	}
	r, ok := l.Disk.FileRange(off, n, write)
	if l.fd != 0 && write {
		r.FD = l.fd
	}
	return r, ok
}

func (l *lender) WriteAt(ctx context.Context, p []byte, off int64, f disk.Flags) error {
	l.written.Add(int64(len(p)))
	return l.Disk.WriteAt(ctx, p, off, f)
}

// Large bodies on a plain socket are spliced into the file, and whatever becomes of
// that, all of the body gets where it belongs.
func TestUploadThroughPipe(t *testing.T) {
	t.Parallel()
	const size, off = 3<<20 + 4321, 1234
	data := randomBytes(size)
	for name, c := range map[string]struct {
		flags   int // of the lent descriptor
		short   bool
		tail    bool // all but the first bytes are sent after the server has begun
		spliced bool
	}{
		"spliced":                 {spliced: true},
		"in pieces":               {spliced: true, tail: true},
		"a file that refuses":     {flags: unix.O_RDONLY | unix.O_CLOEXEC},
		"no splice by the kernel": {flags: unix.O_WRONLY | unix.O_APPEND | unix.O_CLOEXEC},
		"half of the range":       {short: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &lender{short: c.short}
			d := startDaemonOver(t, nil, func(ctx context.Context, u *url.URL, _ Access) (d *disk.Disk, err error) {
				l.Disk, err = file.OpenDisk(ctx, u.Path, file.Options{ForceShare: true})
				return disk.New(l, "lender"), err
			})
			path := d.image("disk", make([]byte, size+off))
			if c.flags != 0 {
				fd, err := unix.Open(path, c.flags, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				l.fd = fd
			}
			id := d.ticket(path, size+off, nil)
			var body io.Reader = bytes.NewReader(data)
			if c.tail {
				body = io.MultiReader(bytes.NewReader(data[:70_001]), &slowly{bytes.NewReader(data[70_001:])})
			}
			client := unixClient(d.cfg.Local.Socket)
			defer client.CloseIdleConnections()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://local/images/"+id, body)
			req.ContentLength = size
			req.Header.Set("Content-Range", fmt.Sprintf("bytes %d-*/*", off))
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			got, err := os.ReadFile(path)
			if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got[off:], data) || !bytes.Equal(got[:off], make([]byte, off)) {
				t.Errorf("status %d, %v, or the content is wrong", resp.StatusCode, err)
			}
			if spliced := l.written.Load() < 64<<10; spliced != c.spliced {
				t.Errorf("%d bytes were written in the ordinary way", l.written.Load())
			}
		})
	}
}

// slowly gives less than a splice step at a time.
type slowly struct{ r io.Reader }

func (s *slowly) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 30_001)]) }

// A file system that fills up in the middle of a spliced body is told as such, and the
// connection of another transfer goes on.
func TestUploadFillsTheStorage(t *testing.T) {
	t.Parallel()
	dir := hostfs.Mount(t, hostfs.Tmpfs, hostfs.Options{Size: 1 << 20})
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, nil)
	id, good := d.ticket(path, 8<<20, nil), d.ticket(d.image("good", make([]byte, 1<<20)), 1<<20, nil)
	for range 2 {
		code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+id, bytes.NewReader(randomBytes(4<<20)))
		if code != 507 || text != "No space left on the storage\n" {
			t.Errorf("full storage: %d %q", code, text)
		}
		if code, text := d.do(http.DefaultClient, "PUT", d.remote+"/images/"+good, bytes.NewReader(randomBytes(1<<20))); code != 200 {
			t.Errorf("another transfer: %d %s", code, text)
		}
	}
}

// A body that ends early is written as far as it came, by either way.
func TestShortLargeBody(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, nil)
	data := randomBytes(300_000)
	path := d.image("disk", make([]byte, 1<<20))
	id := d.ticket(path, 1<<20, nil)
	answer := d.raw(fmt.Sprintf("PUT /images/%s HTTP/1.1\r\ncontent-length: 900000\r\n\r\n%s", id, data))
	if !strings.Contains(answer, "HTTP/1.1 400 ") || !strings.HasSuffix(answer, "Requested 900000 bytes, available 300000 bytes\n") {
		t.Errorf("answer %q", answer)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got[:len(data)], data) || !bytes.Equal(got[len(data):], make([]byte, 1<<20-len(data))) {
		t.Errorf("the file has something else (%v)", err)
	}
}

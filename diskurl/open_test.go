package diskurl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/diskurl"
)

func Example() {
	ctx := context.Background()
	d, err := diskurl.Open(ctx, "mem:1M", diskurl.Options{Filters: []string{"nozero:zeromode=emulate", "delay:write=1ms"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer d.Close()
	fmt.Println(d.WriteAt(ctx, []byte("hello"), 512, 0), d.Size())
	// Output: <nil> 1048576
}

func ExampleParse() {
	u, _ := diskurl.Parse("nbd://server/my%20disk")
	a := u.Addr.(diskurl.NBDAddr)
	fmt.Printf("%s %s %q\n", a.Scheme(), a.Host, a.Export)
	_, err := diskurl.Parse("ndb://server/disk")
	fmt.Println(err)
	// Output:
	// nbd server:10809 "my disk"
	// disk URL "ndb://server/disk": unknown scheme "ndb" (did you mean "nbd"?); write ./ndb://server/disk if it is a file
}

func newFile(t *testing.T, content []byte, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// The heads of image formats, and what has to be said of them.
var heads = map[string]string{
	"qcow2": "QFI\xfb\x00\x00\x00\x03", "qcow": "QFI\xfb\x00\x00\x00\x01", "luks": "LUKS\xba\xbe\x00\x01", "qed": "QED\x00",
	"vmdk": "KDMV", "vhdx": "vhdxfile", "vpc": "conectix", "vdi": strings.Repeat("\x00", 64) + "\x7f\x10\xda\xbe", "parallels": "WithoutFreeSpace",
}

func TestFormatIsNeverProbed(t *testing.T) {
	t.Parallel()
	for format, head := range heads {
		for _, size := range []int64{int64(len(head)), 1 << 20} {
			path := newFile(t, []byte(head), size)
			if got, err := diskurl.Probe(path); got != format || err != nil {
				t.Errorf("%s of %d bytes: probed as %q, %v", format, size, got, err)
			}
			_, err := diskurl.Open(t.Context(), path, diskurl.Options{FormatFlag: "-O"})
			if err == nil || !strings.Contains(err.Error(), "-O "+format) || !strings.Contains(err.Error(), "-O raw") {
				t.Errorf("%s: %v", format, err)
			}
			for _, o := range []struct{ url, format string }{{path, "raw"}, {"raw:" + path, ""}, {"raw:" + path, "raw"}} {
				d, err := diskurl.Open(t.Context(), o.url, diskurl.Options{Format: o.format})
				if err != nil {
					t.Errorf("%s as raw: %v", format, err)
					continue
				}
				got := make([]byte, len(head))
				if err := d.ReadAt(t.Context(), got, 0); err != nil || string(got) != head {
					t.Errorf("%s as raw reads %q, %v", format, got, err)
				}
				d.Close()
			}
		}
	}
	if got, err := diskurl.Probe(newFile(t, nil, 0)); got != "raw" || err != nil {
		t.Errorf("an empty file: %q, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	path := newFile(t, nil, 1<<20)
	for _, c := range []struct {
		url    string
		o      diskurl.Options
		want   string
		syntax bool
	}{
		{"qcow2:" + path, diskurl.Options{}, "no qcow2 image", false},
		{"luks:" + path, diskurl.Options{}, "not supported by this build", false},
		{"vhost-user:/x", diskurl.Options{}, "not supported by this build", false},
		{"mem:1M", diskurl.Options{Format: "qcow2"}, "no qcow2 image", false},
		{path, diskurl.Options{Format: "qcow3"}, `did you mean "qcow2"`, true},
		{"raw:" + path, diskurl.Options{Format: "qcow2"}, "contradicts Format qcow2", true},
		{path, diskurl.Options{FileOptions: diskurl.FileOptions{Cache: "wb"}}, "cache", false},
		{path, diskurl.Options{FileOptions: diskurl.FileOptions{AIO: "native"}}, "AIO", false},
		{"mem:1M", diskurl.Options{Filters: []string{"delay", "dealy"}}, `did you mean "delay"`, true},
		{"mem:1M", diskurl.Options{Filters: []string{"delay:wriet=1"}}, `did you mean "write"`, true},
		{"mem:1M", diskurl.Options{Filters: []string{"delay:write=soon"}}, "duration", true},
		{"mem:1M", diskurl.Options{Filters: []string{"noextents:a=b"}}, "no parameters", true},
		{"mem:1M", diskurl.Options{Filters: []string{"fault:error=EWHAT"}}, "EWHAT", false},
		{"mem:1M", diskurl.Options{Filters: []string{"fault:op=reed"}}, "reed", true},
		{"mem:1M", diskurl.Options{Filters: []string{"fault:range=5"}}, "FROM-TO", true},
		{"mem:1M", diskurl.Options{Filters: []string{"limit:offset=2M"}}, "limit", false},
		{"mem:1M", diskurl.Options{Filters: []string{"stats", "log:logfile=/nonexistent/x"}}, "no such file", false},
		{"nbds://localhost:1/", diskurl.Options{ServerOptions: diskurl.ServerOptions{TLS: diskurl.TLS{CA: path}}}, "no PEM", false},
		{"nbds://localhost:1/", diskurl.Options{ServerOptions: diskurl.ServerOptions{TLS: diskurl.TLS{Key: path}}}, "go together", true},
		{"https://localhost:1/images/x", diskurl.Options{Format: "qcow2"}, "", false},
		{filepath.Dir(path), diskurl.Options{}, "neither a regular file nor a block device", false},
	} {
		d, err := diskurl.Open(t.Context(), c.url, c.o)
		if err == nil {
			d.Close()
			t.Errorf("Open(%q, %+v) succeeded", c.url, c.o)
			continue
		}
		var syntax *diskurl.SyntaxError
		if !strings.Contains(err.Error(), c.want) || errors.As(err, &syntax) != c.syntax {
			t.Errorf("Open(%q, %+v): %v (syntax %v), want %q", c.url, c.o, err, !c.syntax, c.want)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %v", err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new")
	o := diskurl.CreateOptions{Size: 1 << 20}
	if !diskurl.Creatable(diskurl.File(path).As("raw")) {
		t.Error("a missing file is not creatable")
	}
	if err := diskurl.Create(t.Context(), "raw:"+path, o); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := diskurl.Create(t.Context(), path, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an existing file: %v", err)
	}
	// A file in use is not replaced, a failing replacement leaves the file alone.
	d, err := diskurl.Open(t.Context(), path, diskurl.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Replace = true
	if err := diskurl.Create(t.Context(), path, o); !errors.Is(err, diskurl.ErrInUse) {
		t.Errorf("a file in use: %v", err)
	}
	d.Close()
	o.Preallocation = "some"
	if err := diskurl.Create(t.Context(), path, o); err == nil {
		t.Error("preallocation \"some\" was accepted")
	}
	if got, err := os.ReadFile(path); string(got) != "precious" || err != nil {
		t.Errorf("the file holds %q, %v", got, err)
	}
	o.Preallocation = ""
	if err := diskurl.Create(t.Context(), path, o); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); len(got) != 1<<20 || bytes.ContainsFunc(got, func(r rune) bool { return r != 0 }) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	path := newFile(t, nil, 512)
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	u := func(s string) diskurl.URL {
		u, err := diskurl.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if !diskurl.Same(u(path), u("raw:"+link)) {
		t.Error("two names of a file are two disks")
	}
	if diskurl.Same(u(path), u(newFile(t, nil, 512))) || diskurl.Same(u("mem:1"), u("mem:1")) {
		t.Error("two disks are one")
	}
}

// TestFilterClosed: a filter that cannot be built does not leave the disk below open.
func TestFilterClosed(t *testing.T) {
	t.Parallel()
	path := newFile(t, nil, 1<<20)
	if _, err := diskurl.Open(t.Context(), path, diskurl.Options{Filters: []string{"limit:offset=2M", "stats"}}); err == nil {
		t.Fatal("a part beyond the disk was accepted")
	}
	d, err := diskurl.Open(t.Context(), path, diskurl.Options{})
	if err != nil {
		t.Fatalf("the disk is still open: %v", err)
	}
	d.Close()
}

// TestCowShares: a golden image below cow is neither written nor locked against
// other readers.
func TestCowShares(t *testing.T) {
	t.Parallel()
	path := newFile(t, nil, 1<<20)
	for range 2 {
		d, err := diskurl.Open(t.Context(), path, diskurl.Options{Filters: []string{"stats", "cow:store=file"}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.WriteAt(t.Context(), []byte("changed"), 5, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || bytes.Contains(got, []byte("changed")) {
		t.Errorf("the image was changed, or %v", err)
	}
}

// TestStackConformance: URLs with filters keep the contract.
func TestStackConformance(t *testing.T) {
	for _, filters := range [][]string{
		{"nozero:zeromode=emulate", "stats"}, {"volatile", "limit:offset=4K"}, {"cow:store=file,blocksize=8K", "readonly"}, {"rate:rate=10G", "noextents", "delay"},
		{"nozero:zeromode=plugin,fastzeromode=slow", "log:logfile=/dev/null"},
	} {
		t.Run(strings.Join(filters, " "), func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				d, err := diskurl.Open(context.Background(), "mem:4100K", diskurl.Options{Filters: filters})
				if err != nil {
					tb.Fatal(err)
				}
				return d
			}, disktest.Options{Ops: 60})
		})
	}
}

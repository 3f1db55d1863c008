package server

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // as the API offers it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
)

// The bytes of a qcow2 volume are uploaded into a file that is still small: it grows
// with what is written and zeroed, for other tickets' connections too.
func TestFileGrows(t *testing.T) {
	for _, cache := range []file.Cache{file.Writeback, file.None} {
		t.Run(string(cache), func(t *testing.T) {
			for _, sparse := range []bool{false, true} {
				testFileGrows(t, cache, sparse)
			}
		})
	}
}

func testFileGrows(t *testing.T, cache file.Cache, sparse bool) {
	d := startDaemonOver(t, nil, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
		return file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write, ForceShare: true, Cache: cache})
	})
	const size = 8 << 20
	path := d.image("disk", nil)
	target := d.remote + "/images/" + d.ticket(path, size, map[string]any{"sparse": sparse})
	reader := d.remote + "/images/" + d.ticket(path, size, map[string]any{"ops": []string{"read"}})
	check := func(method, target string, body []byte, want int, headers ...string) string {
		t.Helper()
		code, text := d.do(http.DefaultClient, method, target, bytes.NewReader(body), headers...)
		if code != want {
			t.Fatalf("%s %v: %d %.200s, want %d", method, headers, code, text, want)
		}
		return text
	}
	if text := check("GET", reader, nil, 200); text != "" {
		t.Errorf("the empty file gives %d bytes", len(text))
	}
	check("GET", reader, nil, 416, "Range", "bytes=0-4095")
	data := randomBytes(1 << 20)
	check("PUT", target, data, 200, "Content-Range", "bytes 1048576-*/*")
	check("PATCH", target, []byte(`{"op":"zero","offset":4194304,"size":1048576}`), 200)
	check("PATCH", target, []byte(`{"op":"flush"}`), 200)
	check("PUT", target, data[:4096], 416, "Content-Range", "bytes 8388000-*/*")

	want := make([]byte, 5<<20)
	copy(want[1<<20:], data)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the file has %d bytes (%v), want %d that were written", len(got), err, len(want))
	}
	if check("GET", reader, nil, 200) != string(want) {
		t.Error("a reader that was there before the file grew reads something else")
	}
	check("GET", reader, nil, 206, "Range", "bytes=5242879-5242879")
	if text := check("GET", reader, nil, 416, "Range", "bytes=5242880-5242880"); text != "Requested more bytes than available: 5242881 > 5242880\n" {
		t.Error(text)
	}
	var extents []struct{ Start, Length int64 }
	if err := json.Unmarshal([]byte(check("GET", reader+"/extents", nil, 200)), &extents); err != nil || len(extents) == 0 {
		t.Fatal(extents, err)
	}
	if e := extents[len(extents)-1]; e.Start+e.Length != int64(len(want)) {
		t.Errorf("extents end at %d", e.Start+e.Length)
	}
	first, second := md5.Sum(want[:4<<20]), md5.Sum(want[4<<20:])
	outer := md5.Sum(append(first[:], second[:]...))
	if text := check("GET", reader+"/checksum?algorithm=md5", nil, 200); !strings.Contains(text, hex.EncodeToString(outer[:])) {
		t.Errorf("checksum %s", text)
	}
}

// Requests that all make the file larger at once lose nothing of each other's.
func TestFileGrowsAtOnce(t *testing.T) {
	for _, cache := range []file.Cache{file.Writeback, file.None} {
		d := startDaemonOver(t, nil, func(ctx context.Context, u *url.URL, a Access) (*disk.Disk, error) {
			return file.OpenDisk(ctx, u.Path, file.Options{ReadOnly: !a.Write, ForceShare: true, Cache: cache})
		})
		const parts, part = 64, 65536 + 1000 // no whole sectors
		data := randomBytes(parts * part)
		path := d.image("disk", data[:1000])
		target := d.remote + "/images/" + d.ticket(path, int64(len(data)), nil)
		var group sync.WaitGroup
		next := make(chan int, parts)
		for i := range parts {
			next <- (i*37 + 11) % parts
		}
		close(next)
		for range 8 {
			group.Go(func() {
				for i := range next {
					off := i * part
					if code, text := d.do(http.DefaultClient, "PUT", target+"?flush=n", bytes.NewReader(data[off:off+part]), "Content-Range", fmt.Sprintf("bytes %d-*/*", off)); code != 200 {
						t.Errorf("PUT at %d: %d %s", off, code, text)
					}
				}
			})
		}
		group.Wait()
		if got, err := os.ReadFile(path); err != nil || len(got) < len(data) || !bytes.Equal(got[:len(data)], data) || len(got) >= len(data)+4096 {
			t.Errorf("%s: the file has %d bytes (%v), and other ones", cache, len(got), err)
		}
	}
}

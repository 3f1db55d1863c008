package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// daemon starts the transfer daemon; it is killed with the test.
func daemon(t *testing.T, tls bool, conf string) *peer.Daemon {
	t.Helper()
	d, err := peer.StartDaemon(bin(t), tempDir(t), tls, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Kill)
	return d
}

// ticket installs a ticket and returns its id.
func ticket(t *testing.T, d *peer.Daemon, target string, args ...string) string {
	t.Helper()
	id, err := d.Ticket(t.Context(), target, args...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// dataFile writes size bytes, of which every other 512 KiB are zeros.
func dataFile(t *testing.T, path string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	for i := range data {
		if i>>19&1 == 0 {
			data[i] = byte(i*7 + i>>12 | 1)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return data
}

// curl is what people try first.
func TestImageioCurl(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	d, dir := daemon(t, true, ""), tempDir(t)
	src, dst, got := filepath.Join(dir, "src"), filepath.Join(dir, "dst"), filepath.Join(dir, "got")
	data := dataFile(t, src, 6<<20)
	if err := os.WriteFile(dst, make([]byte, len(data)), 0o600); err != nil {
		t.Fatal(err)
	}
	url := d.Image(ticket(t, d, dst))
	curl := func(args ...string) string {
		t.Helper()
		return run(t, append([]string{"curl", "-sS", "--fail-with-body", "--max-time", "60", "--cacert", d.CA()}, args...)...)
	}
	// More than 1 MiB, so curl expects "100 Continue"; with a length, and in chunks.
	curl("-H", "Expect: 100-continue", "-T", src, url)
	if now, err := os.ReadFile(dst); err != nil || !bytes.Equal(now, data) {
		t.Errorf("uploaded with curl: %v, equal %t", err, bytes.Equal(now, data))
	}
	text := curl("-v", "-o", got, url, "--stderr", "-", "-o", filepath.Join(dir, "again"), url)
	if now, err := os.ReadFile(got); err != nil || !bytes.Equal(now, data) {
		t.Errorf("downloaded with curl: %v", err)
	}
	if !strings.Contains(text, "Re-using existing connection") {
		t.Errorf("curl does not keep the connection:\n%s", text)
	}
	if part := curl("-r", "-100", url); part != string(data[len(data)-100:]) {
		t.Error("a suffix range differs")
	}
	if head := curl("-I", url); !strings.Contains(head, fmt.Sprintf("content-length: %d\r\n", len(data))) {
		t.Errorf("HEAD: %s", head)
	}
	if part := curl("-C", "1000000", url); part != string(data[1000000:]) {
		t.Error("a continued download differs")
	}
	var extents []struct{ Start, Length int64 }
	if err := json.Unmarshal([]byte(curl(url+"/extents")), &extents); err != nil || len(extents) == 0 {
		t.Errorf("extents: %v, %v", extents, err)
	}
	if answer := fail(t, 22, "curl", "-sS", "-f", "--cacert", d.CA(), d.Image("missing")); !strings.Contains(answer, "403") {
		t.Errorf("an unknown ticket: %s", answer)
	}
}

func TestImageioPython(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	d := daemon(t, false, "")
	image := filepath.Join(tempDir(t), "image")
	dataFile(t, image, 6<<20)
	out := run(t, "python3", "testdata/httpclient.py", strings.TrimPrefix(d.Control(), "unix:"), d.LocalSocket(), image)
	if out != "ok\n" {
		t.Error(out)
	}
}

// libnbd and qemu-img reach a ticket over NBD too, with TLS as configured.
func TestImageioNBD(t *testing.T) {
	t.Parallel()
	need(t, "qemu-img", "nbdcopy", "nbdinfo")
	dir := tempDir(t)
	socket := filepath.Join(dir, "nbd")
	d := daemon(t, true, "[nbd]\naddress = unix:"+socket+"\n")
	image, dst := filepath.Join(dir, "image"), filepath.Join(dir, "dst")
	data := dataFile(t, image, 8<<20)
	for name, copy := range map[string]func(uri string){
		"qemu-img": func(uri string) { run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri) },
		"nbdcopy":  func(uri string) { run(t, "nbdcopy", "--flush", image, uri) },
	} {
		if err := os.WriteFile(dst, make([]byte, len(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		id := ticket(t, d, dst)
		copy("nbd+unix:///" + id + "?socket=" + socket)
		if now, err := os.ReadFile(dst); err != nil || !bytes.Equal(now, data) {
			t.Errorf("%s: %v, equal %t", name, err, bytes.Equal(now, data))
		}
	}
	id := ticket(t, d, dst, "--ops", "read")
	if out := run(t, "nbdinfo", "nbd+unix:///"+id+"?socket="+socket); !strings.Contains(out, "is_read_only: true") {
		t.Errorf("a read ticket is not read-only: %s", out)
	}
	// TLS is the client's choice on a unix socket.
	run(t, "nbdinfo", "nbds+unix://localhost/"+id+"?socket="+socket+"&tls-certificates="+d.Dir)
	fail(t, 1, "nbdinfo", "nbd+unix:///missing?socket="+socket)
}

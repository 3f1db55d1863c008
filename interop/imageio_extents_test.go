package interop

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// transferExtent is an entry of GET …/extents; what a context lacks is nil.
type transferExtent struct {
	Start, Length     int64
	Zero, Hole, Dirty *bool
}

func (e transferExtent) String() string {
	bit := func(name string, b *bool) string {
		if b == nil {
			return ""
		}
		return fmt.Sprintf(" %s=%t", name, *b)
	}
	return fmt.Sprintf("%d+%d%s%s%s", e.Start>>10, e.Length>>10, bit("zero", e.Zero), bit("hole", e.Hole), bit("dirty", e.Dirty))
}

func transferExtents(t *testing.T, url, context string) (list []string) {
	t.Helper()
	var extents []transferExtent
	if err := json.Unmarshal([]byte(run(t, "curl", "-sS", "--fail-with-body", url+"/extents?context="+context)), &extents); err != nil {
		t.Fatal(err)
	}
	for _, e := range extents {
		list = append(list, e.String())
	}
	return list
}

// snapshot is a chain of a base with 1 MiB of data and a top image with 256 KiB of
// data, 64 KiB of zeros over the base's data, and a bitmap that saw the last two writes.
func snapshot(t *testing.T) (top string) {
	t.Helper()
	dir := tempDir(t)
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", base, "8M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", base)
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 2 4M 128k", top)
	run(t, "qemu-img", "bitmap", "--add", "-g", "64k", top, "backup")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 3 5M 128k", "-c", "write -z 512k 64k", top)
	return top
}

// What the original answers for the same exports: its nbd back end joins
// base:allocation with qemu:allocation-depth, or with the export's only bitmap.
var (
	shallowExtents = []string{"0+512 zero=true hole=true", "512+64 zero=true hole=false", "576+3520 zero=true hole=true",
		"4096+128 zero=false hole=false", "4224+896 zero=true hole=true", "5120+128 zero=false hole=false", "5248+2944 zero=true hole=true"}
	deepExtents = []string{"0+512 zero=false hole=false", "512+64 zero=true hole=false", "576+448 zero=false hole=false", "1024+3072 zero=true hole=true",
		"4096+128 zero=false hole=false", "4224+896 zero=true hole=true", "5120+128 zero=false hole=false", "5248+2944 zero=true hole=true"}
	dirtyExtents = []string{"0+512 zero=false dirty=false", "512+64 zero=true dirty=true", "576+448 zero=false dirty=false", "1024+3072 zero=true dirty=false",
		"4096+128 zero=false dirty=false", "4224+896 zero=true dirty=false", "5120+128 zero=false dirty=true", "5248+2944 zero=true dirty=false"}
)

// TestImageioExtents: a client that downloads a snapshot without its backing chain
// skips the holes, and an incremental backup takes what is dirty: both are wrong data if
// the extents are wrong. The same through a second daemon, whose ticket names the first's.
func TestImageioExtents(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	top := snapshot(t)
	d, proxy := daemon(t, false, ""), daemon(t, false, "")
	shallow := qemuNBD(t, "-r", "-A", "--image-opts", "driver=qcow2,backing=,file.driver=file,file.filename="+top).Socket
	deep := qemuNBD(t, "-r", "-f", "qcow2", "-A", "-B", "backup", top).Socket
	plain := qemuNBD(t, "-r", "-f", "qcow2", top).Socket
	for _, c := range []struct {
		socket, context string
		args            []string
		want            []string
	}{
		{shallow, "zero", nil, shallowExtents},
		{deep, "zero", nil, deepExtents},
		{deep, "zero", []string{"--dirty"}, deepExtents},
		{deep, "dirty", []string{"--dirty"}, dirtyExtents},
		{deep, "zero", nil, deepExtents}, // the URL of the dirty ticket, without --dirty
	} {
		args := append([]string{"--size", "8M", "--ops", "read"}, c.args...)
		url := d.Image(ticket(t, d, "nbd:unix:"+c.socket, args...))
		if got := transferExtents(t, url, c.context); !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v\nwant %v", c.context, c.args, got, c.want)
		}
		again := proxy.Image(ticket(t, proxy, url, args...))
		if got := transferExtents(t, again, c.context); !slices.Equal(got, c.want) {
			t.Errorf("%s %v through a proxy: %v\nwant %v", c.context, c.args, got, c.want)
		}
	}
	noDirty(t, d, proxy, deep, plain)
}

// noDirty: without a dirty ticket, or without a bitmap, the dirty context does not exist.
func noDirty(t *testing.T, d, proxy *peer.Daemon, deep, plain string) {
	t.Helper()
	for _, c := range []struct {
		socket string
		args   []string
	}{{deep, nil}, {plain, []string{"--dirty"}}} {
		args := append([]string{"--size", "8M", "--ops", "read"}, c.args...)
		url := d.Image(ticket(t, d, "nbd:unix:"+c.socket, args...))
		for _, url := range []string{url, proxy.Image(ticket(t, proxy, url, "--size", "8M", "--ops", "read", "--dirty"))} {
			if code := run(t, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url+"/extents?context=dirty"); code != "404" {
				t.Errorf("the dirty extents of %v: %s, want 404", c, code)
			}
		}
	}
}

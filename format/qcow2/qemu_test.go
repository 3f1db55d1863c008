package qcow2_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

func qemuImg(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("qemu-img %v: %v (install qemu-utils)\n%s", args, err, out)
	}
	return string(out)
}

func qemuIO(tb testing.TB, path string, commands ...string) {
	tb.Helper()
	args := []string{"-f", "qcow2", path}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("qemu-io", args...).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("failed")) || bytes.Contains(out, []byte("rror")) {
		tb.Fatalf("qemu-io %v: %v (install qemu-utils)\n%s", commands, err, out)
	}
}

// mixed is content with runs that compress, runs that do not, and zeros.
func mixed(n int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, n)
	for at := 0; at < n; {
		run := min(1+rnd.IntN(60_000), n-at)
		switch part := p[at : at+run]; rnd.IntN(3) {
		case 0:
			for i := range part {
				part[i] = byte(rnd.Uint32())
			}
		case 1:
			for i := range part {
				part[i] = byte(i>>4) | 1
			}
		}
		at += run
	}
	return p
}

func openFile(tb testing.TB, path string, o qcow2.Options) *disk.Disk {
	tb.Helper()
	child, err := file.OpenDisk(tb.Context(), path, file.Options{ReadOnly: o.ReadOnly})
	if err != nil {
		tb.Fatal(err)
	}
	d, err := qcow2.Open(tb.Context(), child, o)
	if err != nil {
		child.Close()
		tb.Fatal(err)
	}
	return d
}

// beside opens what an image in dir names there, as tests may.
func beside(dir string) qcow2.Opener {
	return func(ctx context.Context, name, format string) (*disk.Disk, error) {
		child, err := file.OpenDisk(ctx, filepath.Join(dir, filepath.Base(name)), file.Options{ReadOnly: true})
		if err != nil || format == "raw" {
			return child, err
		}
		return qcow2.Open(ctx, child, qcow2.Options{ReadOnly: true, Backing: beside(dir), Data: beside(dir)})
	}
}

// same compares the disk with want, in reads of several sizes, and its map with both.
func same(tb testing.TB, d *disk.Disk, want []byte) {
	tb.Helper()
	if d.Size() != int64(len(want)) {
		tb.Fatalf("the disk has %d bytes, want %d", d.Size(), len(want))
	}
	for _, step := range []int{1 << 20, 100_001} {
		got := make([]byte, step)
		for off := 0; off < len(want); off += step {
			n := min(step, len(want)-off)
			if err := d.ReadAt(tb.Context(), got[:n], int64(off)); err != nil {
				tb.Fatal(err)
			}
			if !bytes.Equal(got[:n], want[off:off+n]) {
				for i := range n {
					if got[i] != want[off+i] {
						tb.Fatalf("offset %d holds %#x, want %#x", off+i, got[i], want[off+i])
					}
				}
			}
		}
	}
	sameMap(tb, d, want)
}

func sameMap(tb testing.TB, d *disk.Disk, want []byte) {
	tb.Helper()
	for off := int64(0); off < d.Size(); {
		es, err := d.Extents(tb.Context(), disk.Allocation, off, d.Size()-off, make([]disk.Extent, 0, 7))
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range es {
			if e.Flags&disk.ExtentZero != 0 && len(bytes.Trim(want[off:off+e.Len], "\x00")) > 0 {
				tb.Fatalf("the map says that %d bytes at %d are zero, and they are not", e.Len, off)
			}
			off += e.Len
		}
	}
}

// combination is one kind of image.
type combination struct {
	options string
	convert []string
}

func (c combination) String() string { return c.options + strings.Join(c.convert, "") }

func combinations(short bool) []combination {
	var all []combination
	add := func(o string, convert ...string) { all = append(all, combination{o, convert}) }
	for i, cluster := range []string{"512", "4k", "64k", "2M"} {
		add("compat=0.10,cluster_size=" + cluster)
		add("compat=0.10,cluster_size="+cluster, "-c")
		for _, bits := range []int{1, 2, 4, 8, 16, 32, 64} {
			if short && bits != 1<<(2*i) {
				continue
			}
			o := fmt.Sprintf("compat=1.1,refcount_bits=%d,cluster_size=%s", bits, cluster)
			add(o)
			if bits > 1 { // compressed clusters share host clusters, which needs refcounts above 1
				add(o, "-c")
				add(o+",compression_type=zstd", "-c")
			}
			if cluster == "64k" || cluster == "2M" {
				add(o + ",extended_l2=on")
				if bits > 1 {
					add(o+",extended_l2=on,compression_type=zstd", "-c")
				}
			}
		}
	}
	return all
}

// What qemu-img makes is read as it is, alone and as an overlay over files that are
// shorter, longer, and end within a cluster.
func TestReadsQEMU(t *testing.T) {
	const size = 5<<20 + 1536
	want := mixed(size, 7)
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range combinations(testing.Short()) {
		t.Run(c.String(), func(t *testing.T) {
			image := filepath.Join(dir, fmt.Sprint(i))
			defer os.Remove(image)
			qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2", "-o", c.options}, c.convert...), raw, image)...)
			d := openFile(t, image, qcow2.Options{ReadOnly: true})
			same(t, d, want)
			d.Close()
			over := image + ".over"
			defer os.Remove(over)
			backed(t, image, over, c.options, want)
		})
	}
}

func backed(t *testing.T, base, over, options string, content []byte) {
	t.Helper()
	for _, size := range []int{len(content) + 3<<20 + 512, len(content), 2<<20 + 1024} {
		want := append([]byte(nil), content[:min(size, len(content))]...)
		want = append(want, make([]byte, size-len(want))...)
		qemuImg(t, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", "-o", options, over, fmt.Sprint(size))
		fill(want[70_000:75_000], 0xab)
		fill(want[1<<20:1<<20+512], 0xcd)
		commands := []string{"write -P 0xab 70000 5000", "write -P 0xcd 1M 512"}
		if !strings.Contains(options, "compat=0.10") {
			clear(want[1<<20+100_000 : 2<<20])
			commands = append(commands, fmt.Sprintf("write -z %d %d", 1<<20+100_000, 1<<20-100_000))
		}
		qemuIO(t, over, commands...)
		d := openFile(t, over, qcow2.Options{ReadOnly: true, Backing: beside(filepath.Dir(base))})
		same(t, d, want)
		d.Close()
		os.Remove(over)
	}
}

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}

// An external data file is read, raw or not.
func TestReadsDataFile(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"on", "off"} {
		dir := t.TempDir()
		image := filepath.Join(dir, "i")
		want := mixed(3<<20, 9)
		if err := os.WriteFile(filepath.Join(dir, "raw"), want, 0o600); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, "data")+",data_file_raw="+raw, image, fmt.Sprint(len(want)))
		qemuImg(t, "convert", "-n", "-f", "raw", "-O", "qcow2", filepath.Join(dir, "raw"), image)
		d := openFile(t, image, qcow2.Options{ReadOnly: true, Data: beside(dir)})
		same(t, d, want)
		d.Close()
	}
}

// The map has the data, zeros and holes that qemu-img map has.
func TestDepth(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base, over := filepath.Join(dir, "base"), filepath.Join(dir, "over")
	qemuImg(t, "create", "-q", "-f", "qcow2", base, "1M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over, "2M")
	qemuIO(t, base, "write -P 1 0 128k")
	qemuIO(t, over, "write -P 2 64k 64k", "write -z 512k 64k")
	d := openFile(t, over, qcow2.Options{ReadOnly: true, Backing: beside(dir)})
	defer d.Close()
	if got, want := walk(t, d, disk.Depth), "65536:0:2 65536:0:1 393216:0:0 65536:0:1 1507328:0:0 "; got != want {
		t.Errorf("depth\n got %s\nwant %s", got, want)
	}
	// 6: a hole that comes from the backing file; 7: one that is zeros there.
	if got, want := walk(t, d, disk.Allocation), "65536:6:0 65536:0:0 917504:7:0 1048576:3:0 "; !strings.HasPrefix(got, "65536:6:0 65536:0:0 ") {
		t.Errorf("allocation\n got %s\nwant %s", got, want)
	}
}

func walk(tb testing.TB, d *disk.Disk, m disk.MapName) (got string) {
	tb.Helper()
	for off := int64(0); off < d.Size(); {
		es, err := d.Extents(tb.Context(), m, off, d.Size()-off, make([]disk.Extent, 0, 100))
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range es {
			got += fmt.Sprintf("%d:%d:%d ", e.Len, e.Flags, e.Value)
			off += e.Len
		}
	}
	return got
}

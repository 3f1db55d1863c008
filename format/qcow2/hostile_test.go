package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/file"
	"github.com/vmdisk/vmdisk/driver/mem"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

// small is an image of 1 MiB with clusters of 64 KiB: data in the first, a compressed
// second one, a zero third.
func small(tb testing.TB, options ...string) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "small")
	qemuImg(tb, append(append([]string{"create", "-q", "-f", "qcow2"}, options...), path, "1M")...)
	qemuIO(tb, path, "write -P 1 0 64k", "write -c -P 2 64k 64k", "write -z 128k 64k")
	p, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// inMemory is a disk that holds p.
func inMemory(tb testing.TB, p []byte) *disk.Disk {
	tb.Helper()
	d, err := mem.Open(int64(len(p)))
	if err == nil {
		err = d.WriteAt(tb.Context(), p, 0, 0)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// readAll opens the image and reads all of it, up to 64 MiB.
func readAll(ctx context.Context, child *disk.Disk) error {
	d, err := qcow2.Open(ctx, child, qcow2.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < min(d.Size(), 64<<20); off += int64(len(p)) {
		part := p[:min(int64(len(p)), d.Size()-off)]
		if err := d.ReadAt(ctx, part, off); err != nil {
			return err
		}
		if _, err := d.Extents(ctx, disk.Allocation, off, int64(len(part)), make([]disk.Extent, 0, 64)); err != nil {
			return err
		}
	}
	return nil
}

type edit struct {
	name  string
	at    int
	value any
	want  string
}

const l2At = -1 // the first L2 table, at + what follows

func (e edit) apply(tb testing.TB, p []byte) {
	tb.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.BigEndian, e.value); err != nil {
		tb.Fatal(err)
	}
	at := e.at
	if at < 0 {
		l1 := binary.BigEndian.Uint64(p[40:])
		at = int(binary.BigEndian.Uint64(p[l1:])&(1<<56-1)) + 8*(l2At-e.at)
	}
	copy(p[at:], b.Bytes())
}

// Each is a class of fault that other readers of the format had.
var hostile = []edit{
	{"magic", 0, uint32(0), "no qcow2 image"},
	{"version 1", 4, uint32(1), "version 1"},
	{"version 4", 4, uint32(4), "version 4"},
	{"cluster bits 0", 20, uint32(0), "clusters of 2^0"},
	{"cluster bits 63", 20, uint32(63), "clusters of 2^63"},
	{"cluster bits 8", 20, uint32(8), "clusters of 2^8"},
	{"cluster bits 22", 20, uint32(22), "clusters of 2^22"},
	{"size", 24, uint64(math.MaxUint64), "a size of"},
	{"size above the L1 table", 24, uint64(1 << 40), "L1 table has 1 entries"},
	{"size above any L1 table", 24, uint64(1 << 62), "the limit is"},
	{"AES", 32, uint32(1), "encrypted (AES)"},
	{"LUKS", 32, uint32(2), "encrypted (LUKS)"},
	{"L1 size", 36, uint32(math.MaxUint32), "L1 table has 4294967295 entries"},
	{"L1 not in the file", 36, uint32(4 << 20), "L1 table"},
	{"L1 offset", 40, uint64(1 << 62), "L1 table"},
	{"L1 offset, negative", 40, uint64(1<<63 | 1<<16), "L1 table"},
	{"L1 offset within a cluster", 40, uint64(512), "L1 table"},
	{"refcount table offset", 48, uint64(1 << 55), "refcount table"},
	{"refcount table size", 56, uint32(math.MaxUint32), "refcount table"},
	{"no refcount table", 56, uint32(0), "refcount table"},
	{"snapshots", 60, uint32(math.MaxUint32), "snapshots"},
	{"snapshot table not in the file", 60, uint32(65536), "snapshot table"},
	{"unknown feature", 72, uint64(1 << 40), "incompatible bit 40"},
	{"unknown feature with a name", 72, uint64(1 << 63), "incompatible bit 63"},
	{"compression type without its bit", 104, uint8(1), "contradict"},
	{"compression bit without a type", 72, uint64(8), "contradict"},
	{"compression type", 104, uint8(9), "compression type 9"},
	{"refcount order", 96, uint32(7), "2^7 bits"},
	{"header length", 100, uint32(math.MaxUint32 &^ 7), "header's length"},
	{"header length, odd", 100, uint32(105), "header's length"},
	{"header length, short", 100, uint32(8), "header's length"},
	{"extension's length", 116, uint32(math.MaxUint32), "extension"},
	{"backing name's length", 8, []uint32{0, 60000, 1 << 31}, "backing file's name"},
	{"backing name beyond the cluster", 8, []uint32{0, 65530, 100}, "backing file's name"},
	{"backing name far away", 8, []uint32{1 << 31, 0, 10}, "backing file's name"},
	{"backing name over the header", 8, []uint32{0, 4, 10}, "backing file's name"},
	{"data file without a name", 72, uint64(4), "its name is missing"},
	{"L2 entry within a cluster", l2At, uint64(1<<63 | 0x50200), "no cluster's"},
	{"L2 entry beyond the file", l2At, uint64(1<<63 | 1<<50), "not inside the file"},
	{"compressed beyond the file", l2At, uint64(1<<62 | 1<<50), "not inside the file"},
	{"compressed header", l2At, uint64(1<<62 | 1), "cannot be decompressed"},
	{"compressed itself", l2At, uint64(1<<62 | 0x40000), "cannot be decompressed"},
}

func TestHostile(t *testing.T) {
	t.Parallel()
	good := small(t)
	if err := readAll(t.Context(), inMemory(t, good)); err != nil {
		t.Fatalf("unharmed: %v", err)
	}
	for _, e := range hostile {
		p := bytes.Clone(good)
		e.apply(t, p)
		err := bounded(t, e.name, inMemory(t, p))
		if err == nil || !strings.Contains(err.Error(), e.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", e.name, err, e.want)
		}
	}
}

func TestExtendedNeedsLargeClusters(t *testing.T) {
	t.Parallel()
	p := small(t, "-o", "cluster_size=8k")
	edit{at: 72, value: uint64(16)}.apply(t, p)
	if err := readAll(t.Context(), inMemory(t, p)); err == nil || !strings.Contains(err.Error(), "they need 16 KiB") {
		t.Errorf("got %v", err)
	}
}

// bounded reads the image and fails if that takes long, or much memory.
func bounded(tb testing.TB, name string, child *disk.Disk) error {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	err := readAll(tb.Context(), child)
	runtime.ReadMemStats(&after)
	if took := time.Since(start); took > 10*time.Second {
		tb.Errorf("%s: took %v", name, took)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 192<<20 {
		tb.Errorf("%s: %d bytes were allocated", name, used)
	}
	return err
}

// Of tables that are huge but whole (a sparse file costs its maker nothing), opening costs what
// their limit says.
func TestHugeTables(t *testing.T) {
	t.Parallel()
	p := small(t)
	for _, e := range []edit{{at: 36, value: uint32(4 << 20)}, {at: 56, value: uint32(128)}, {at: 60, value: uint32(65536)}, {at: 64, value: uint64(1 << 30)}} {
		e.apply(t, p)
	}
	d, err := mem.Open(8 << 40)
	if err == nil {
		err = d.WriteAt(t.Context(), p, 0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := bounded(t, "huge tables", d); err != nil {
		t.Error(err)
	}
}

// A truncated image ends in an error wherever it is cut, and never reads as zeros.
func TestTruncated(t *testing.T) {
	t.Parallel()
	good := small(t)
	for n := 0; n < len(good)-64<<10; n += 4093 {
		err := readAll(t.Context(), inMemory(t, good[:n]))
		if err == nil {
			t.Errorf("cut to %d of %d bytes, it reads", n, len(good))
		}
	}
}

// What an image names is opened by nobody's default.
func TestReferencesDenied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	over, data := filepath.Join(dir, "over"), filepath.Join(dir, "data")
	qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", over, "1M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+data+".raw", data, "1M")
	for path, name := range map[string]string{over: `"/etc/shadow"`, data: data + ".raw"} {
		child, err := file.OpenDisk(t.Context(), path, file.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = qcow2.Open(t.Context(), child, qcow2.Options{ReadOnly: true})
		if !errors.Is(err, qcow2.ErrReference) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", path, err)
		}
		d, err := qcow2.Open(t.Context(), child, qcow2.Options{ReadOnly: true, NoReferences: true})
		if err != nil {
			t.Fatal(err)
		}
		walk(t, d, disk.Allocation)
		if err := d.ReadAt(t.Context(), make([]byte, 1<<20), 0); path == over && !errors.Is(err, qcow2.ErrReference) {
			t.Errorf("reading what is in a file that is not opened: %v", err)
		}
		d.Close()
	}
}

// FuzzRead opens and reads hostile images: whatever they hold, that ends in time, in an
// error or not, and within the disk's bounds.
func FuzzRead(f *testing.F) {
	good := small(f)
	f.Add(good)
	f.Add(small(f, "-o", "extended_l2=on"))
	f.Add(small(f, "-o", "compression_type=zstd,refcount_bits=64"))
	f.Add(small(f, "-o", "compat=0.10,cluster_size=512"))
	for _, e := range hostile {
		p := bytes.Clone(good)
		e.apply(f, p)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		_ = bounded(t, "fuzzed", inMemory(t, p))
	})
}

// The contract, read-only, over images of all forms of clusters.
func TestConformanceReadOnly(t *testing.T) {
	want := mixed(4<<20+512, 3)
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"cluster_size=64k", "cluster_size=512", "cluster_size=64k,extended_l2=on", "cluster_size=2M"} {
		for _, compress := range []bool{false, true} {
			image := filepath.Join(dir, fmt.Sprintf("%s-%v", o, compress))
			args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", o}
			if compress {
				args = append(args, "-c")
			}
			qemuImg(t, append(args, raw, image)...)
			t.Run(filepath.Base(image), func(t *testing.T) {
				disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
					return openFile(tb, image, qcow2.Options{ReadOnly: true})
				}, disktest.Options{Content: func(p []byte, off int64) { copy(p, want[off:]) }, Ops: 100})
			})
		}
	}
}

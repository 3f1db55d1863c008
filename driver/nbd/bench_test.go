package nbd_test

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/nbd"
)

// cpuTime is the processor time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkQueue measures the client's CPU against a server of another process.
func BenchmarkQueue(b *testing.B) {
	for _, server := range []struct {
		name string
		args []string
	}{
		{"null", []string{"nbdkit", "-f", "-U", "SOCK", "null", "1G"}},
		{"memory", []string{"nbdkit", "-f", "-U", "SOCK", "memory", "1G"}},
	} {
		for _, c := range []struct {
			kind  disk.Kind
			size  int64
			depth int
		}{
			{disk.Read, 4 << 10, 1}, {disk.Read, 4 << 10, 16}, {disk.Write, 4 << 10, 16},
			{disk.Read, 256 << 10, 16}, {disk.Write, 256 << 10, 16}, {disk.Write, 256 << 10, 64},
		} {
			b.Run(fmt.Sprintf("%s/%v/%dk/depth%d", server.name, c.kind, c.size>>10, c.depth), func(b *testing.B) {
				cfg := nbd.Config{Client: peer(b, append([]string(nil), server.args...)...), NoReplay: true}
				d, err := nbd.Open(context.Background(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				defer d.Close()
				pump(b, d, c.kind, c.size, c.depth)
			})
		}
	}
}

// pump keeps depth operations in flight until b.N have ended.
func pump(b *testing.B, d *disk.Disk, kind disk.Kind, size int64, depth int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q, err := d.NewQueue(depth)
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	ctx := context.Background()
	ops, ends := make([]disk.Op, 0, depth), make([]disk.Completion, depth)
	vecs := make([][][]byte, depth)
	idle := make([]uint64, 0, depth)
	for i := range vecs {
		vecs[i] = [][]byte{make([]byte, size)}
		idle = append(idle, uint64(i))
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuTime()
	off := int64(0)
	for sent, done := 0, 0; done < b.N; {
		ops = ops[:0]
		for len(idle) > 0 && sent < b.N {
			tag := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			off = (off + 4099*4096) % (d.Size() - size) &^ 4095
			ops = append(ops, disk.Op{Kind: kind, Off: off, Len: size, Vec: vecs[tag], Tag: tag})
			sent++
		}
		if _, err := q.Submit(ops); err != nil {
			b.Fatal(err)
		}
		n, err := q.Reap(ctx, 1, ends)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range ends[:n] {
			if e.Err != nil {
				b.Fatal(e.Err)
			}
			idle = append(idle, e.Tag)
		}
		done += n
	}
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N)/1000, "cpu-us/op")
}

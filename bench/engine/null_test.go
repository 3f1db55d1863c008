package engine

import (
	"context"
	"testing"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/null"
)

// ioengine=null without a disk touches no buffer; on null: reads are zeros.
func TestNullEngineAndNullDisk(t *testing.T) {
	t.Parallel()
	for _, onDisk := range []bool{false, true} {
		d, err := null.Open(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		r := &runState{cfg: Config{OneDisk: onDisk}}
		w := newWorker(r, &jobfile.Job{Engine: "null", Depth: 1})
		q, err := w.queue(&target{d: d})
		if err != nil {
			t.Fatal(err)
		}
		buf := []byte("as it was")
		if n, err := q.Submit([]disk.Op{{Kind: disk.Read, Len: int64(len(buf)), Vec: [][]byte{buf}, Tag: 7}}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		done := make([]disk.Completion, 2)
		if n, err := q.Reap(context.Background(), 1, done); n != 1 || err != nil || done[0].Tag != 7 || done[0].Err != nil {
			t.Fatal(n, err, done[0])
		}
		want := map[bool]string{false: "as it was", true: "\x00\x00\x00\x00\x00\x00\x00\x00\x00"}[onDisk]
		if string(buf) != want {
			t.Errorf("on a disk: %v: the buffer is %q, want %q", onDisk, buf, want)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Package behind has a disk in the page cache written out while it is being filled,
// and takes it out of memory again.
//
// By itself the kernel begins when a tenth of the memory is dirty, so that the flush at
// the end of a copy finds all of it still to be done; and what a copy leaves in the page
// cache has pushed out what the host's guests had there. New pages are not free
// either: a machine whose own host gives it memory at the first touch took 2.8 s for
// 1.2 GiB in new pages and 0.65 s in the same few ones again.
package behind

import (
	"github.com/vmdisk/vmdisk/disk"
)

const (
	// Step is how much is written out at a time, in bytes: a few requests of the
	// largest kind for any device, yet little memory.
	Step = 8 << 20
	// Keep is how much stays under way while what was begun before is waited for.
	Keep = 4 * Step
)

// Writer writes out a disk piece by piece. It is not safe for concurrent use.
type Writer struct {
	to    disk.WriteBehinder
	under []piece // way: begun, not waited for
	bytes int64   // of them
	// Broken: a piece could not be written. Only a flush can tell what that means; the
	// Writer does nothing more.
	Broken bool
}

type piece struct{ off, n, bytes int64 }

// NewWriter returns a Writer for what d holds, or nil where there is no page cache to
// write out.
func NewWriter(d *disk.Disk) *Writer {
	to, ok := disk.As[disk.WriteBehinder](d)
	if !ok || to.WriteBehind(0, 0, false) != nil {
		return nil
	}
	return &Writer{to: to}
}

// Begin writes out [off, off+n), which holds bytes of data; the rest are holes. It
// waits for pieces that were begun Keep bytes ago, and drops them from memory.
func (w *Writer) Begin(off, n, bytes int64) {
	if w.Broken {
		return
	}
	err := w.to.WriteBehind(off, n, false)
	w.under = append(w.under, piece{off, n, bytes})
	w.bytes += bytes
	for err == nil && w.bytes-w.under[0].bytes >= Keep {
		first := w.under[0]
		w.under = append(w.under[:0], w.under[1:]...)
		w.bytes -= first.bytes
		err = w.to.WriteBehind(first.off, first.n, true)
	}
	w.Broken = err != nil
}

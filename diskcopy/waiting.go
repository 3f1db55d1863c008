package diskcopy

import (
	"time"

	"github.com/vmdisk/vmdisk/disk"
)

// waiter is a disk behind a server that may be silent.
type waiter struct {
	name string
	disk.Waiter
}

func waitersOf(disks []*disk.Disk) (list []waiter) {
	for _, d := range disks {
		if w, ok := disk.As[disk.Waiter](d); ok {
			list = append(list, waiter{d.Name(), w})
		}
	}
	return list
}

// longest returns who has been silent longest, and for how long.
func longest(list []waiter) (name string, silent time.Duration) {
	for _, w := range list {
		if d := w.Waiting(); d > silent {
			name, silent = w.name, d
		}
	}
	return name, silent
}

// toldAfter is the silence from which on progress tells of it.
const toldAfter = 2 * time.Second

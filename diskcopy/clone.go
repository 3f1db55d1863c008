package diskcopy

import (
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
)

// cloneStep bounds one FICLONERANGE, which cannot be interrupted.
const cloneStep = 64 << 30

// clone shares the source's blocks with the target where one file system holds
// both and can. False: nothing was done, or less than all, and everything has
// to be copied.
func (e *engine) clone() (bool, error) {
	if e.opt.NoClone || e.opt.Allocate || e.opt.Strategy != Auto || e.walk.pos != 0 || e.size == 0 {
		return false, nil
	}
	for off := int64(0); off < e.size; {
		if err := e.ctx.Err(); err != nil {
			return false, err
		}
		n := min(cloneStep, e.size-off)
		if !cloneRange(e.dst, e.src, off, n) {
			return false, nil
		}
		off += n
		e.done.Store(off)
	}
	e.total.Clone = Count{Ops: (e.size + cloneStep - 1) / cloneStep, Bytes: e.size}
	e.total.ZeroBy = "clone"
	e.walk.pos = e.size
	return true, nil
}

// cloneRange tries one FICLONERANGE. Any refusal means an ordinary copy, which
// meets and names whatever is really wrong.
func cloneRange(dst, src *disk.Disk, off, n int64) bool {
	from, ok := src.FileRange(off, n, false)
	if !ok {
		return false
	}
	defer from.Release()
	to, ok := dst.FileRange(off, n, true)
	if !ok {
		return false
	}
	defer to.Release()
	if from.Len < n || to.Len < n {
		return false
	}
	return unix.IoctlFileCloneRange(to.FD, &unix.FileCloneRange{
		Src_fd: int64(from.FD), Src_offset: uint64(from.Off), Src_length: uint64(n), Dest_offset: uint64(to.Off)}) == nil
}

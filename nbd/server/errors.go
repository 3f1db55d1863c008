package server

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
)

// refusal is a request that never reaches the disk.
type refusal struct {
	errno nbd.Errno
	text  string
}

// The refusals of section "Error values" and of the commands' own sections.
var (
	refuseCommand  = &refusal{nbd.EINVAL, "unknown command"}
	refuseFlags    = &refusal{nbd.EINVAL, "a flag that was not offered, or not for this command"}
	refuseReadOnly = &refusal{nbd.EPERM, "the export is read-only"}
	refuseRange    = &refusal{nbd.EINVAL, "beyond the end of the export"}
	refuseSpace    = &refusal{nbd.ENOSPC, "beyond the end of the export"}
	refuseLong     = &refusal{nbd.EINVAL, "longer than the maximum payload"}
	refuseFragment = &refusal{nbd.EOVERFLOW, "too long for one fragment"}
	refuseContext  = &refusal{nbd.EINVAL, "no such metadata context was negotiated"}
	refusePayload  = &refusal{nbd.EINVAL, "this request takes no such payload"}
	refuseField    = &refusal{nbd.EINVAL, "the length and the offset must be zero"}
)

// errnoOf is the one table from a disk's errors (not nil) to the wire's. ENOTSUP means
// "not fast" to a client, EOVERFLOW "retry shorter" and ESHUTDOWN "disconnect", so
// none of the three is passed on from below.
func errnoOf(err error, f disk.Flags) nbd.Errno {
	var sys syscall.Errno
	switch {
	case errors.Is(err, disk.ErrNotFast) && f&disk.FastOnly != 0:
		return nbd.ENOTSUP
	case errors.Is(err, disk.ErrReadOnly), errors.Is(err, fs.ErrPermission):
		return nbd.EPERM
	case errors.Is(err, disk.ErrRange):
		return nbd.EINVAL
	case errors.Is(err, context.Canceled):
		return nbd.ESHUTDOWN
	case errors.As(err, &sys):
		switch e := nbd.FromSystem(sys); e {
		case nbd.ENOTSUP, nbd.EOVERFLOW:
			return nbd.EINVAL
		case nbd.ESHUTDOWN:
			return nbd.EIO
		default:
			return e
		}
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, disk.ErrFlags):
		return nbd.EINVAL
	}
	return nbd.EIO
}

// messageOf is the text that goes with an error number. It never holds what the
// disk said, which names local paths.
func messageOf(e nbd.Errno) string {
	if e == nbd.ENOTSUP {
		return "zeroing would not be fast"
	}
	var sys syscall.Errno
	if errors.As(e, &sys) {
		return sys.Error()
	}
	return ""
}

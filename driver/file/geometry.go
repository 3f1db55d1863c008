package file

import (
	"fmt"
	"math/bits"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/uring"
)

// geometry is what does not change while a file is open. Bytes all.
type geometry struct {
	blockDev   bool
	readOnly   bool // block device: nothing can be written, though it opens for that
	inMemory   bool // tmpfs or ramfs
	fsType     int64
	sector     int64 // logical sector of a block device; 1 for files
	ioAlign    int64 // O_DIRECT: alignment of offset and length
	memAlign   int64 // O_DIRECT: alignment of memory
	preferred  int64
	trimAlign  int64
	maxZeroes  int64 // block device: largest offloaded zeroing, 0 none, -1 unknown
	maxDiscard int64 // block device: likewise for discards
}

const (
	pageSize    = 4096 // unit of allocation of the usual file systems
	maxIOAlign  = 64 << 10
	unknownSize = -1
)

func (g *geometry) learnGeometry(fd int, direct bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	g.sector, g.ioAlign, g.memAlign = 1, 1, 1
	if g.blockDev {
		if err := g.learnDevice(fd, st.Rdev); err != nil {
			return err
		}
	} else if err := g.learnFileSystem(fd, &st); err != nil {
		return err
	}
	if direct {
		return g.learnDirect(fd)
	}
	return nil
}

func (g *geometry) learnFileSystem(fd int, st *unix.Stat_t) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	g.fsType = fs.Type
	g.inMemory = g.fsType == unix.TMPFS_MAGIC || g.fsType == unix.RAMFS_MAGIC
	// NFS calls its transfer size a block, so no more than a page is believed.
	g.trimAlign = min(max(fs.Bsize, 1), pageSize)
	g.preferred = min(max(int64(st.Blksize), pageSize), maxIOAlign) //nolint:unconvert // 32 bits on arm64
	return nil
}

func (g *geometry) learnDevice(fd int, rdev uint64) error {
	sector, err := unix.IoctlGetInt(fd, unix.BLKSSZGET)
	if err != nil {
		return fmt.Errorf("ask for the logical sector size: %w", err)
	}
	physical, err := unix.IoctlGetInt(fd, unix.BLKPBSZGET)
	if err != nil {
		physical = sector
	}
	g.sector = int64(sector)
	// Such a device opens for writing like any other, and fails at the first write.
	if ro, err := unix.IoctlGetInt(fd, unix.BLKROGET); err == nil && ro != 0 {
		g.readOnly = true
	}
	g.preferred = max(int64(physical), pageSize)
	g.maxZeroes = queueLimit(rdev, "write_zeroes_max_bytes")
	g.maxDiscard = queueLimit(rdev, "discard_max_bytes")
	g.trimAlign = max(queueLimit(rdev, "discard_granularity"), g.sector)
	return nil
}

// queueLimit reads a limit of a block device's queue; a partition's is its
// disk's.
func queueLimit(rdev uint64, name string) int64 {
	dev := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(rdev), unix.Minor(rdev))
	for _, queue := range []string{"queue/", "../queue/"} {
		if b, err := os.ReadFile(dev + queue + name); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				return n
			}
		}
	}
	return unknownSize
}

// learnDirect finds the alignment O_DIRECT demands: from statx (Linux 6.1), from
// the device, or by trying.
func (g *geometry) learnDirect(fd int) error {
	var stx unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stx)
	switch {
	case err == nil && stx.Mask&unix.STATX_DIOALIGN != 0 && stx.Dio_offset_align != 0:
		g.ioAlign, g.memAlign = int64(stx.Dio_offset_align), int64(stx.Dio_mem_align)
	case g.blockDev:
		g.ioAlign, g.memAlign = g.sector, g.sector
	default:
		g.ioAlign = tryDirect(fd)
		g.memAlign = g.ioAlign
	}
	if g.ioAlign > maxIOAlign || bits.OnesCount64(uint64(g.ioAlign)) != 1 || bits.OnesCount64(uint64(g.memAlign)) != 1 {
		return fmt.Errorf("O_DIRECT wants offsets aligned to %d bytes and memory to %d, which cannot be used; use cache mode writeback", g.ioAlign, g.memAlign)
	}
	return nil
}

// tryDirect reads one sector. Where that proves nothing (an empty file; btrfs,
// which reads unaligned ranges through the page cache without a word) a page
// is the safe answer.
func tryDirect(fd int) int64 {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || fs.Type == unix.BTRFS_SUPER_MAGIC {
		return pageSize
	}
	buf, err := uring.Alloc(pageSize)
	if err != nil {
		return pageSize
	}
	defer uring.Free(buf)
	if n, err := unix.Pread(fd, buf[:512], 0); err == nil && n == 512 {
		return 512
	}
	return pageSize
}

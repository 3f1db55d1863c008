package limit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/vmdisk/vmdisk/disk"
)

// part is a range of the disk, in bytes.
type part struct{ off, size int64 }

const (
	mbrSize       = 512
	mbrEntries    = 446
	mbrSignature  = 0xaa55
	mbrProtective = 0xee
	maxLogical    = 256
	// maxTable bounds the GPT's entries: 128 of 128 bytes are the rule, the
	// standard has no bound.
	maxTable = 1 << 20
)

var errNoTable = errors.New("there is no partition table: neither an MBR nor a GPT")

// findPartition reads the table and returns partition number n. A sector of 0
// means to find out.
func findPartition(ctx context.Context, d *disk.Disk, n int, sector int64) (part, error) {
	if sector != 0 && sector != 512 && sector != 4096 {
		return part{}, fmt.Errorf("sector size %d is neither 512 nor 4096", sector)
	}
	parts, err := readTable(ctx, d, sector)
	if err != nil {
		return part{}, err
	}
	found, ok := parts[n]
	switch {
	case !ok:
		return part{}, fmt.Errorf("there is no such partition; the table has %s", numbers(parts))
	case found.off < 0 || found.size <= 0 || found.off > d.Size() || found.size > d.Size()-found.off:
		return part{}, fmt.Errorf("the table has it at offset %d, %d bytes long, but the disk ends at %d: %w",
			found.off, found.size, d.Size(), disk.ErrCorrupt)
	}
	return found, nil
}

func numbers(parts map[int]part) string {
	list := ""
	for n := 1; n <= maxTable && len(parts) > 0; n++ {
		if _, ok := parts[n]; ok {
			list += fmt.Sprintf(" %d", n)
			delete(parts, n)
		}
	}
	if list == "" {
		return "none at all"
	}
	return "only" + list
}

func readTable(ctx context.Context, d *disk.Disk, sector int64) (map[int]part, error) {
	mbr, err := readSector(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	if mbr[mbrEntries+4] != mbrProtective {
		return readMBR(ctx, d, mbr, max(sector, 512))
	}
	sizes := []int64{sector}
	if sector == 0 {
		sizes = []int64{512, 4096}
	}
	var errs []error
	for _, size := range sizes {
		parts, err := readGPT(ctx, d, size)
		if err == nil {
			return parts, nil
		}
		errs = append(errs, fmt.Errorf("GPT with sectors of %d bytes: %w", size, err))
	}
	return nil, errors.Join(errs...)
}

// readSector reads a boot record and checks its signature.
func readSector(ctx context.Context, d *disk.Disk, off int64) ([]byte, error) {
	p := make([]byte, mbrSize)
	if d.Size() < mbrSize {
		return nil, errNoTable
	}
	if err := d.ReadAt(ctx, p, off); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint16(p[510:]) != mbrSignature {
		return nil, errNoTable
	}
	return p, nil
}

// mbrEntry is entry i (0 to 3) of a boot record; its first sector is relative to
// what the kind of the entry says.
func mbrEntry(p []byte, i int) (kind byte, first, count int64) {
	e := p[mbrEntries+16*i:]
	return e[4], int64(binary.LittleEndian.Uint32(e[8:])), int64(binary.LittleEndian.Uint32(e[12:]))
}

func isExtended(kind byte) bool { return kind == 0x05 || kind == 0x0f || kind == 0x85 }

func readMBR(ctx context.Context, d *disk.Disk, mbr []byte, sector int64) (map[int]part, error) {
	parts := map[int]part{}
	for i := range 4 {
		kind, first, count := mbrEntry(mbr, i)
		if kind == 0 || count == 0 {
			continue
		}
		parts[i+1] = part{first * sector, count * sector}
		if isExtended(kind) {
			if err := readLogical(ctx, d, first, sector, parts); err != nil {
				return nil, fmt.Errorf("logical partitions: %w", err)
			}
		}
	}
	return parts, nil
}

// readLogical follows the chain of boot records in an extended partition: the
// first entry of each is a partition, relative to the record; the second is the
// next record, relative to the extended partition.
func readLogical(ctx context.Context, d *disk.Disk, extended, sector int64, parts map[int]part) error {
	at := extended
	for n := 5; ; n++ {
		if n-5 == maxLogical {
			return fmt.Errorf("more than %d of them, or a loop: %w", maxLogical, disk.ErrCorrupt)
		}
		record, err := readSector(ctx, d, at*sector)
		if errors.Is(err, errNoTable) {
			return fmt.Errorf("sector %d is no boot record: %w", at, disk.ErrCorrupt)
		}
		if err != nil {
			return err
		}
		if kind, first, count := mbrEntry(record, 0); kind != 0 && count > 0 {
			parts[n] = part{(at + first) * sector, count * sector}
		}
		kind, next, count := mbrEntry(record, 1)
		if !isExtended(kind) || count == 0 {
			return nil
		}
		at = extended + next
	}
}

// readGPT reads the table at the beginning of the disk, or if that is damaged the
// copy at its end.
func readGPT(ctx context.Context, d *disk.Disk, sector int64) (map[int]part, error) {
	parts, err := readGPTAt(ctx, d, sector, sector)
	if err == nil {
		return parts, nil
	}
	if backup, err2 := readGPTAt(ctx, d, d.Size()/sector*sector-sector, sector); err2 == nil {
		return backup, nil
	}
	return nil, err
}

var errGPT = fmt.Errorf("damaged: %w", disk.ErrCorrupt)

// readGPTAt reads the header at off and the entries that it names (UEFI 2.10,
// section 5.3).
func readGPTAt(ctx context.Context, d *disk.Disk, off, sector int64) (map[int]part, error) {
	h := make([]byte, 512)
	if err := d.ReadAt(ctx, h, off); err != nil {
		return nil, err
	}
	length, sum := binary.LittleEndian.Uint32(h[12:]), binary.LittleEndian.Uint32(h[16:])
	clear(h[16:20])
	if string(h[:8]) != "EFI PART" || length < 92 || length > 512 || crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, errGPT
	}
	first, count := binary.LittleEndian.Uint64(h[72:]), int64(binary.LittleEndian.Uint32(h[80:]))
	size := int64(binary.LittleEndian.Uint32(h[84:]))
	if size < 128 || size > maxTable || count > maxTable/size || first > uint64(d.Size()/sector) {
		return nil, errGPT
	}
	table := make([]byte, count*size)
	if err := d.ReadAt(ctx, table, int64(first)*sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(table) != binary.LittleEndian.Uint32(h[88:]) {
		return nil, errGPT
	}
	parts := map[int]part{}
	for i := range int(count) {
		if p, ok := gptEntry(table[int64(i)*size:], sector); ok {
			parts[i+1] = p
		}
	}
	return parts, nil
}

// gptEntry returns what an entry describes; false if it is unused. A range that
// no disk can have comes out empty.
func gptEntry(e []byte, sector int64) (part, bool) {
	if [16]byte(e) == [16]byte{} {
		return part{}, false
	}
	first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
	if most := uint64(1<<63-1) / uint64(sector); first > last || last >= most {
		return part{}, true
	}
	return part{int64(first) * sector, int64(last-first+1) * sector}, true
}

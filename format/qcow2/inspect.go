package qcow2

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// Inspect implements disk.Inspector: what the header says. It opens nothing.
func (d *driver) Inspect(ctx context.Context) ([]disk.Attr, error) {
	h := &d.header
	attrs := []disk.Attr{
		{Name: "qcow2-version", Value: int64(h.version)},
		{Name: "cluster-size", Value: h.cluster},
		{Name: "refcount-bits", Value: int64(1) << h.refcountOrder},
		{Name: "compression-type", Value: map[uint8]string{compressZlib: "zlib", compressZstd: "zstd"}[h.compression]},
		{Name: "extended-l2", Value: h.extended()},
		{Name: "lazy-refcounts", Value: h.compatible&featLazyRefcounts != 0},
		{Name: "dirty", Value: h.incompatible&featDirty != 0},
		{Name: "corrupt", Value: h.incompatible&featCorrupt != 0},
		{Name: "snapshots", Value: int64(h.snapshots)},
	}
	if h.backing != "" {
		attrs = append(attrs, disk.Attr{Name: "backing-file", Value: h.backing},
			disk.Attr{Name: "backing-format", Value: orNone(h.extensions.text(extBackingFormat))})
	}
	if h.dataFile() {
		attrs = append(attrs, disk.Attr{Name: "data-file", Value: h.extensions.text(extDataFile)},
			disk.Attr{Name: "data-file-raw", Value: h.rawData()})
	}
	if i, ok := disk.As[disk.Inspector](d.child); ok {
		below, err := i.Inspect(ctx)
		return append(attrs, below...), err
	}
	return attrs, nil
}

//go:build !without_qcow2

package diskurl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

var _ = addFormat(&format{name: FormatQcow2, open: openQcow2})

func openQcow2(ctx context.Context, child *disk.Disk, o FormatOptions) (*disk.Disk, error) {
	q := qcow2.Options{ReadOnly: o.ReadOnly, NoReferences: o.NoReferences}
	if o.References != nil {
		q.Backing, q.Data = o.References.opener("backing file"), o.References.opener("data file")
	}
	d, err := qcow2.Open(ctx, child, q)
	if errors.Is(err, qcow2.ErrReference) {
		err = fmt.Errorf("%w: --backing allow=DIR allows files beneath DIR", err)
	}
	return d, err
}

func (p Policy) opener(kind string) qcow2.Opener {
	return func(ctx context.Context, name, format string) (*disk.Disk, error) {
		return p(ctx, Reference{Kind: kind, Name: name, Format: format})
	}
}

//go:build !without_qcow2

package diskurl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/format/qcow2"
)

var _ = addFormat(&format{name: FormatQcow2, open: openQcow2, create: createQcow2})

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

var qcow2Keys = []Key{
	{Name: "compat", Values: []string{"1.1", "0.10", "v3", "v2"}},
	{Name: "cluster_size", Form: "SIZE"},
	{Name: "refcount_bits", Form: "N"},
	{Name: "extended_l2", Values: []string{"off", "on"}},
	{Name: "lazy_refcounts", Values: []string{"off", "on"}},
	{Name: "compression_type", Values: []string{"zlib", "zstd"}},
	{Name: "preallocation", Values: []string{"off", "metadata", "falloc", "full"}},
	{Name: "backing_file", Form: "NAME"},
	{Name: "backing_fmt", Form: "FORMAT"},
}

func createQcow2(ctx context.Context, child *disk.Disk, o CreateOptions) error {
	q := qcow2.CreateOptions{Size: o.Size, Preallocation: o.Preallocation, Backing: o.Backing, BackingFormat: o.BackingFormat}
	if err := layoutQcow2(&q, o.Layout); err != nil {
		return err
	}
	return qcow2.Create(ctx, child, q)
}

func layoutQcow2(q *qcow2.CreateOptions, layout []string) error {
	p := params{values: map[string]string{}, keys: qcow2Keys}
	for _, list := range layout {
		for _, item := range strings.Split(list, ",") {
			key, value, ok := strings.Cut(item, "=")
			if _, twice := p.values[key]; !ok || twice {
				return &SyntaxError{What: "-o", Input: item, Err: errors.New("want KEY=VALUE, each key once")}
			}
			p.values[key] = value
		}
	}
	if compat := p.choice("compat"); compat == "0.10" || compat == "v2" {
		q.Version = 2
	}
	q.ClusterSize = p.size("cluster_size", 0)
	q.RefcountBits = int(p.size("refcount_bits", 0))
	for key, n := range map[string]int64{"cluster_size": q.ClusterSize, "refcount_bits": int64(q.RefcountBits)} {
		if n == 0 && p.given(key) {
			p.fail(key, errors.New("it is 0"))
		}
	}
	q.ExtendedL2, q.LazyRefcounts = p.choice("extended_l2") == "on", p.choice("lazy_refcounts") == "on"
	q.Zstd = p.choice("compression_type") == "zstd"
	if _, ok := p.lookup("preallocation"); ok {
		q.Preallocation = p.choice("preallocation")
	}
	q.Backing, q.BackingFormat = p.text("backing_file", q.Backing), p.text("backing_fmt", q.BackingFormat)
	if err := p.finish(); err != nil {
		return &SyntaxError{What: "-o", Input: strings.Join(layout, ","), Err: err}
	}
	return nil
}

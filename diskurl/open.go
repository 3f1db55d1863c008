package diskurl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/disk"
)

// ErrNotBuilt: the URL is right, but this build has no protocol or format for it.
var ErrNotBuilt = errors.New("not supported by this build")

// Open opens the disk at a URL and stacks the filters over it. Closing the
// returned disk closes everything below it.
func Open(ctx context.Context, rawURL string, o Options) (*disk.Disk, error) {
	u, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if err := o.TLS.check(u); err != nil {
		return nil, err
	}
	specs, err := parseFilters(o.Filters)
	if err != nil {
		return nil, err
	}
	o.ReadOnly = o.ReadOnly || keepsBase(specs)
	base, err := u.open(ctx, &o)
	if err != nil {
		return nil, err
	}
	return stack(ctx, base, specs)
}

// open opens the disk and puts its formats over it.
func (u URL) open(ctx context.Context, o *Options) (*disk.Disk, error) {
	list, err := u.formatList(o.Format, o.formatFlag())
	if err != nil {
		return nil, err
	}
	rows, err := u.formatRows(list, o.formatFlag())
	if err != nil {
		return nil, err
	}
	d, err := u.openAddr(ctx, o, len(list) > 0)
	if err != nil {
		return nil, err
	}
	for _, f := range rows {
		next, err := u.openFormat(ctx, f, d, o)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s as %s: %w", u.Redacted(), f.name, err), d.Close())
		}
		d = next
	}
	return d, nil
}

func (u URL) openFormat(ctx context.Context, f *format, child *disk.Disk, o *Options) (*disk.Disk, error) {
	policy, err := u.policy(child, o)
	if err != nil {
		return nil, err
	}
	return f.open(ctx, child, FormatOptions{ReadOnly: o.ReadOnly, References: policy, NoReferences: o.NoReferences})
}

// formatRows are the rows of formats.
func (u URL) formatRows(list []string, flag string) ([]*format, error) {
	var rows []*format
	for _, name := range list {
		f, ok := formats[name]
		if !ok {
			return nil, fmt.Errorf("%s: format %s is %w; `%s raw` takes the bytes as they are", u.Redacted(), name, ErrNotBuilt, flag)
		}
		rows = append(rows, f)
	}
	return rows, nil
}

// openAddr opens the bytes; told says that somebody named their format.
func (u URL) openAddr(ctx context.Context, o *Options, told bool) (*disk.Disk, error) {
	p, err := u.protocol()
	if err != nil {
		return nil, err
	}
	if !told && p.check != nil {
		if err := p.check(u.Addr, o); err != nil {
			return nil, err
		}
	}
	return p.open(ctx, u.Addr, o)
}

func (u URL) protocol() (*protocol, error) {
	if p, ok := protocols[u.Scheme()]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("%s: scheme %s is %w", u.Redacted(), u.Scheme(), ErrNotBuilt)
}

// Exports lists what the server of a URL has; of o, TLS and Timeout matter.
func Exports(ctx context.Context, rawURL string, o Options) ([]Export, error) {
	u, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	p, err := u.protocol()
	if err != nil {
		return nil, err
	}
	if p.list == nil || u.Formats != "" {
		return nil, fmt.Errorf("%s: only NBD servers list exports", u.Redacted())
	}
	if err := o.TLS.check(u); err != nil {
		return nil, err
	}
	return p.list(ctx, u.Addr, &o)
}

// Export is one disk of a server.
type Export struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	URL         string `json:"url"`
}

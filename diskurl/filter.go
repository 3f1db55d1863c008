package diskurl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/disk"
)

// FilterSpec is a filter as the command line names it, NAME[:KEY=VALUE,...]. A
// comma inside a value is written twice.
type FilterSpec struct {
	Name   string
	Params map[string]string
}

// ParseFilter parses a filter's specification. Whether the filter and its
// parameters exist is found out by Open.
func ParseFilter(s string) (FilterSpec, error) {
	name, rest, more := strings.Cut(s, ":")
	spec := FilterSpec{Name: name, Params: map[string]string{}}
	if !plainName(name) {
		return FilterSpec{}, filterError(s, "want NAME[:KEY=VALUE,...]")
	}
	if !more {
		return spec, nil
	}
	for _, part := range splitCommas(rest) {
		key, value, ok := strings.Cut(part, "=")
		_, twice := spec.Params[key]
		switch {
		case !ok || !plainName(key):
			return FilterSpec{}, filterError(s, fmt.Sprintf("want KEY=VALUE in place of %q", part))
		case twice:
			return FilterSpec{}, filterError(s, fmt.Sprintf("parameter %s is given twice", key))
		}
		spec.Params[key] = value
	}
	return spec, nil
}

// String returns the specification in the form that ParseFilter reads back.
func (f FilterSpec) String() string {
	var b strings.Builder
	b.WriteString(f.Name)
	sep := byte(':')
	for _, k := range slices.Sorted(maps.Keys(f.Params)) {
		b.WriteByte(sep)
		b.WriteString(k + "=" + strings.ReplaceAll(f.Params[k], ",", ",,"))
		sep = ','
	}
	return b.String()
}

func filterError(spec, why string) error {
	return &SyntaxError{What: "filter", Input: spec, Err: fmt.Errorf("%s", why)}
}

func plainName(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != ""
}

// splitCommas splits at commas; two in a row are one inside a part.
func splitCommas(s string) []string {
	parts := []string{""}
	for i := 0; i < len(s); i++ {
		last := &parts[len(parts)-1]
		switch {
		case s[i] != ',':
			*last += s[i : i+1]
		case i+1 < len(s) && s[i+1] == ',':
			*last += ","
			i++
		default:
			parts = append(parts, "")
		}
	}
	return parts
}

// FilterInfo describes one filter for help texts and completion.
type FilterInfo struct {
	Name, Summary string
	Keys          []Key
}

// Filters lists the filters of this build by name.
func Filters() []FilterInfo {
	out := make([]FilterInfo, 0, len(filters))
	for name, f := range filters {
		out = append(out, FilterInfo{name, f.summary, slices.Clone(f.keys)})
	}
	slices.SortFunc(out, func(a, b FilterInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// CompleteFilter lists how a specification that is begun may go on: names, a filter's keys,
// a key's values, each with a tab and a description where there is one.
func CompleteFilter(begun string) []string {
	name, rest, more := strings.Cut(begun, ":")
	if !more {
		var out []string
		for _, f := range Filters() {
			colon := ":"
			if f.Keys == nil {
				colon = ""
			}
			out = append(out, f.Name+colon+"\t"+f.Summary)
		}
		return out
	}
	f, ok := filters[name]
	if !ok {
		return nil
	}
	last := rest[strings.LastIndexByte(rest, ',')+1:]
	before := strings.TrimSuffix(begun, last)
	key, _, valued := strings.Cut(last, "=")
	var out []string
	for _, k := range f.keys {
		switch {
		case !valued:
			out = append(out, before+k.Name+"=\t"+k.Help)
		case k.Name == key:
			for _, v := range k.Values {
				out = append(out, before+key+"="+v)
			}
		}
	}
	return out
}

// parseFilters parses specifications, and refuses filters that do not exist before
// anything is opened.
func parseFilters(list []string) ([]FilterSpec, error) {
	specs := make([]FilterSpec, 0, len(list))
	for _, s := range list {
		spec, err := ParseFilter(s)
		if err != nil {
			return nil, err
		}
		if _, err := spec.row(); err != nil {
			return nil, err
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// keepsBase reports whether nothing is ever written below one of the filters,
// so that the disk can be opened for reading, and shared.
func keepsBase(specs []FilterSpec) bool {
	return slices.ContainsFunc(specs, func(s FilterSpec) bool { return filters[s.Name].keepsBase })
}

// stack puts the filters over base, the first outermost. On an error base is
// closed with what was put over it.
func stack(ctx context.Context, base *disk.Disk, specs []FilterSpec) (*disk.Disk, error) {
	top := base
	for _, spec := range slices.Backward(specs) {
		next, err := spec.put(ctx, top)
		if err != nil {
			return nil, errors.Join(err, top.Close())
		}
		top = next
	}
	return top, nil
}

func (f FilterSpec) put(ctx context.Context, child *disk.Disk) (*disk.Disk, error) {
	row, err := f.row()
	if err != nil {
		return nil, err
	}
	p := &params{values: f.Params, keys: row.keys}
	d, err := row.build(ctx, child, p)
	if bad := p.finish(); bad != nil {
		return nil, filterError(f.String(), bad.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", f, err)
	}
	return d, nil
}

func (f FilterSpec) row() (*filter, error) {
	if row, ok := filters[f.Name]; ok {
		return row, nil
	}
	if kindOf(f.Name) == kindFilter {
		return nil, fmt.Errorf("filter %s is %w", f.Name, ErrNotBuilt)
	}
	known := slices.Sorted(maps.Keys(filters))
	return nil, filterError(f.String(), "unknown filter"+suggest(f.Name, known)+"; known: "+strings.Join(known, ", "))
}

// build keeps a filter from being made of bad parameters.
func build[C any](p *params, cfg C, child *disk.Disk, put func(*disk.Disk, C) (*disk.Disk, error)) (*disk.Disk, error) {
	if !p.ok() {
		return nil, nil // put says what p has against it
	}
	return put(child, cfg)
}

// plain is the build of a filter without parameters.
func plain(put func(*disk.Disk) *disk.Disk) func(context.Context, *disk.Disk, *params) (*disk.Disk, error) {
	return func(_ context.Context, child *disk.Disk, p *params) (*disk.Disk, error) {
		return build(p, struct{}{}, child, func(d *disk.Disk, _ struct{}) (*disk.Disk, error) { return put(d), nil })
	}
}

package diskurl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

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

// FilterInfo describes one filter for help texts.
type FilterInfo struct{ Name, Summary string }

// Filters lists the filters of this build by name.
func Filters() []FilterInfo {
	out := make([]FilterInfo, 0, len(filters))
	for name, f := range filters {
		out = append(out, FilterInfo{name, f.summary})
	}
	slices.SortFunc(out, func(a, b FilterInfo) int { return strings.Compare(a.Name, b.Name) })
	return out
}

type filterKind struct {
	summary string
	// build reads its parameters from p (which remembers the first error) and
	// puts the filter over child; it is only kept if p is content.
	build func(ctx context.Context, child *disk.Disk, p *params) (*disk.Disk, error)
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
	kind, err := f.kind()
	if err != nil {
		return nil, err
	}
	p := &params{values: f.Params}
	d, err := kind.build(ctx, child, p)
	if bad := p.finish(); bad != nil {
		return nil, filterError(f.String(), bad.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("filter %s: %w", f, err)
	}
	return d, nil
}

func (f FilterSpec) kind() (filterKind, error) {
	kind, ok := filters[f.Name]
	if !ok {
		names := slices.Sorted(maps.Keys(filters))
		return kind, filterError(f.String(), "unknown filter"+suggest(f.Name, names)+"; known: "+strings.Join(names, ", "))
	}
	return kind, nil
}

// params reads typed parameters. Reading registers the key as known; the first
// bad value is kept.
type params struct {
	values map[string]string
	known  []string
	err    error
}

func (p *params) lookup(key string) (string, bool) {
	p.known = append(p.known, key)
	v, ok := p.values[key]
	return v, ok
}

func (p *params) fail(key string, err error) {
	if p.err == nil {
		p.err = fmt.Errorf("parameter %s: %w", key, err)
	}
}

// ok reports whether everything read so far was good.
func (p *params) ok() bool { return p.finish() == nil }

func (p *params) finish() error {
	for _, key := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(p.known, key) {
			if len(p.known) == 0 {
				return fmt.Errorf("the filter has no parameters")
			}
			return fmt.Errorf("unknown parameter %q%s; known: %s", key, suggest(key, p.known), strings.Join(p.known, ", "))
		}
	}
	return p.err
}

func (p *params) text(key, def string) string {
	if v, ok := p.lookup(key); ok {
		return v
	}
	return def
}

// choice reads one of the allowed words; the first is the default.
func (p *params) choice(key string, allowed ...string) string {
	v, ok := p.lookup(key)
	if !ok {
		return allowed[0]
	}
	if !slices.Contains(allowed, v) {
		p.fail(key, fmt.Errorf("%q is none of %s%s", v, strings.Join(allowed, ", "), suggest(v, allowed)))
	}
	return v
}

func (p *params) size(key string, def int64) int64 {
	v, ok := p.lookup(key)
	if !ok {
		return def
	}
	n, err := ParseSize(v)
	if err != nil {
		p.fail(key, err)
	}
	return n
}

// sizeRange reads FROM-TO, two sizes; 0 and 0 if it is not given.
func (p *params) sizeRange(key string) (from, to int64) {
	v, ok := p.lookup(key)
	if !ok {
		return 0, 0
	}
	low, high, ok := strings.Cut(v, "-")
	from, err := ParseSize(low)
	if err == nil {
		to, err = ParseSize(high)
	}
	if !ok || err != nil || to <= from {
		p.fail(key, fmt.Errorf("%q is not FROM-TO, two sizes", v))
	}
	return from, to
}

func (p *params) given(key string) bool {
	_, ok := p.lookup(key)
	return ok
}

func (p *params) count(key string, def int64) int64 {
	v, ok := p.lookup(key)
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		p.fail(key, fmt.Errorf("%q is not a whole number of 0 or more", v))
	}
	return n
}

// fraction reads 0..1, or a percentage.
func (p *params) fraction(key string, def float64) float64 {
	v, ok := p.lookup(key)
	if !ok {
		return def
	}
	number, percent := strings.CutSuffix(v, "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		p.fail(key, fmt.Errorf("%q is not 0..1 or 0%%..100%%", v))
	}
	return f
}

// duration reads Go's form (40ms, 1.5s); a bare number is seconds, as nbdkit has it.
func (p *params) duration(key string, def time.Duration) time.Duration {
	v, ok := p.lookup(key)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		d, err = time.ParseDuration(v + "s")
	}
	if err != nil || d < 0 {
		p.fail(key, fmt.Errorf("%q is not a duration such as 40ms or 1.5s", v))
	}
	return d
}

func (p *params) boolean(key string, def bool) bool {
	v, ok := p.lookup(key)
	if !ok {
		return def
	}
	switch v {
	case "on", "true", "yes", "1":
		return true
	case "off", "false", "no", "0":
		return false
	}
	p.fail(key, fmt.Errorf("%q is neither on nor off", v))
	return def
}

package diskurl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// params reads typed parameters, of a row's keys alone. The first bad value is kept.
type params struct {
	values map[string]string
	keys   []Key
	err    error
}

func (p *params) key(name string) Key {
	i := slices.IndexFunc(p.keys, func(k Key) bool { return k.Name == name })
	if i < 0 {
		panic("diskurl: a filter reads the key " + name + ", which its row does not have")
	}
	return p.keys[i]
}

func (p *params) lookup(key string) (string, bool) {
	v, ok := p.values[p.key(key).Name]
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
	known := make([]string, len(p.keys))
	for i, k := range p.keys {
		known[i] = k.Name
	}
	for _, key := range slices.Sorted(maps.Keys(p.values)) {
		if !slices.Contains(known, key) {
			if len(known) == 0 {
				return fmt.Errorf("the filter has no parameters")
			}
			return fmt.Errorf("unknown parameter %q%s; known: %s", key, suggest(key, known), strings.Join(known, ", "))
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

// choice reads one of the key's values; the first is the default.
func (p *params) choice(key string) string {
	allowed := p.key(key).Values
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

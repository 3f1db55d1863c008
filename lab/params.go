package lab

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/diskurl"
)

// SetError is a parameter that does not exist or has no such value.
type SetError struct{ Text string }

func (e *SetError) Error() string { return e.Text }

func setErrorf(format string, args ...any) error {
	return &SetError{fmt.Sprintf(format, args...)}
}

// params are an experiment's parameters by name. The first value that cannot be
// read is remembered in err.
type params struct {
	values map[string]string
	err    *error
}

// params fills in the defaults and refuses unknown names.
func (e Experiment) params(set map[string]string) (params, error) {
	p := params{values: map[string]string{}, err: new(error)}
	names := make([]string, 0, len(e.Params))
	for _, x := range e.Params {
		p.values[x.Name] = x.Default
		names = append(names, x.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if _, ok := p.values[name]; !ok {
			return p, setErrorf("no parameter %q: use one of %s", name, strings.Join(names, ", "))
		}
		p.values[name] = set[name]
	}
	return p, nil
}

func (p params) fail(name, want string) {
	if *p.err == nil {
		*p.err = setErrorf("%s=%s: want %s", name, p.values[name], want)
	}
}

// number reads a number from low to high.
func (p params) number(name string, low, high int64) int64 {
	n, err := strconv.ParseInt(p.values[name], 10, 64)
	if err != nil || n < low || n > high {
		p.fail(name, fmt.Sprintf("a number from %d to %d", low, high))
	}
	return n
}

// numbers reads a list of numbers from low to high.
func (p params) numbers(name string, low, high int64) (list []int64) {
	for text := range strings.SplitSeq(p.values[name], ",") {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < low || n > high {
			p.fail(name, fmt.Sprintf("numbers from %d to %d with commas between", low, high))
		}
		list = append(list, n)
	}
	return list
}

// size reads a size that is a multiple of unit.
func (p params) size(name string, unit, high int64) int64 {
	n, err := diskurl.ParseSize(p.values[name])
	if err != nil || n < unit || n > high || n%unit != 0 {
		p.fail(name, fmt.Sprintf("a size up to %s in multiples of %s", diskurl.FormatSize(high), diskurl.FormatSize(unit)))
	}
	return n
}

func (p params) duration(name string, high time.Duration) time.Duration {
	d, err := time.ParseDuration(p.values[name])
	if err != nil || d < 0 || d > high {
		p.fail(name, fmt.Sprintf("a time such as 4ms, up to %v", high))
	}
	return d
}

func (p params) choice(name string, of ...string) string {
	if !slices.Contains(of, p.values[name]) {
		p.fail(name, "one of "+strings.Join(of, ", "))
	}
	return p.values[name]
}

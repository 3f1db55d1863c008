package jobfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// ParseTime reads a time as job files have it; unit is that of a bare number.
func ParseTime(s string, unit time.Duration) (time.Duration, error) {
	r := reader{kbBase: 1024}
	return r.duration(s, unit)
}

// Explain says what becomes of an option, or of "all".
func Explain(name string) (string, error) {
	if name != "all" {
		first := canonical(name)
		o, ok := options[first]
		if !ok {
			return "", fmt.Errorf("unknown option %q%s", name, suggested(name))
		}
		return o.explain(first), nil
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(options)) {
		b.WriteString(options[n].explain(n))
	}
	return b.String(), nil
}

func (o option) explain(name string) string {
	what := "works as in fio"
	switch {
	case o.refuse != "":
		what = "refused: " + o.refuse
	case o.note != "":
		what = "accepted, without effect: " + o.note
	case o.bare:
		what += "; may stand without a value"
	}
	var others []string
	for other, first := range aliases {
		if first == name {
			others = append(others, other)
		}
	}
	if slices.Sort(others); others != nil {
		what += " (also " + strings.Join(others, ", ") + ")"
	}
	return fmt.Sprintf("%-28s %s\n", name, what)
}

// ExplainEngine says what becomes of an I/O engine, or of "all".
func ExplainEngine(name string) (string, error) {
	if name != "all" {
		name, _, _ = strings.Cut(name, ",")
		e, ok := engines[name]
		if !ok {
			return "", fmt.Errorf("unknown ioengine %q (%s)", name, strings.Join(engineNames(), ", "))
		}
		return e.explain(name), nil
	}
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(engines)) {
		b.WriteString(engines[n].explain(n))
	}
	return b.String(), nil
}

func (e engineInfo) explain(name string) string {
	what := "iodepth= I/Os at a time"
	switch {
	case e.refuse != "":
		what = "refused: " + e.refuse
	case e.sync:
		what = "one I/O at a time"
	}
	if e.polls != noPolling {
		what += "; hipri polls"
	}
	return fmt.Sprintf("%-20s %s\n", name, what)
}

// CommandLine is what the sections say as arguments of the command line.
func (p *Parser) CommandLine() string {
	var out []string
	for i := range p.Sections {
		s := &p.Sections[i]
		if !s.Global {
			out = append(out, quoted("--name="+s.Name))
			if s.Wall {
				out = append(out, "--stonewall")
			}
		} else if i > 0 {
			out = append(out, "--name=global")
		}
		for _, st := range s.Settings {
			a := "--" + st.Name
			if st.HasValue {
				a += "=" + st.Value
			}
			out = append(out, quoted(a))
		}
	}
	return strings.Join(out, " ")
}

// quoted is an argument as a shell takes it.
func quoted(a string) string {
	if !strings.ContainsAny(a, " \t'\"\\$`;&|<>()*?[]#~!{}") {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}

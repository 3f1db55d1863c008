package server

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"strings"
)

// iniFile is section -> key -> value; names of keys are lower case.
type iniFile map[string]map[string]iniValue

// iniDefault is the section whose values are those of any other section of the files that
// has none of its own.
const iniDefault = "DEFAULT"

// section is a section with the defaults counted in; what no file has a header for has none.
func (ini iniFile) section(name string) map[string]iniValue {
	own, ok := ini[name]
	if !ok || len(ini[iniDefault]) == 0 {
		return own
	}
	values := maps.Clone(ini[iniDefault])
	maps.Copy(values, own)
	return values
}

type iniValue struct {
	text  string
	where string // FILE:LINE
}

// parseINI reads the dialect of Python's RawConfigParser, which is what the
// hosts' files are written for: "key = value" or "key: value", comments on lines
// of their own that begin with # or ;, values continued on indented lines,
// names of keys without regard to case. A section or key that stands twice in
// one file is an error there and here.
func parseINI(r io.Reader, name string, into iniFile) error {
	p := iniParser{name: name, into: into, seen: map[string]bool{}}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		p.line++
		if err := p.parse(lines.Text()); err != nil {
			return fmt.Errorf("%s:%d: %w", name, p.line, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, p.line+1, err)
	}
	return nil
}

type iniParser struct {
	name    string
	line    int
	into    iniFile
	seen    map[string]bool
	section string
	key     string // the key that an indented line continues
}

func (p *iniParser) parse(line string) error {
	text := strings.TrimSpace(line)
	switch {
	case text == "" || text[0] == '#' || text[0] == ';':
		return nil
	case p.key != "" && (line[0] == ' ' || line[0] == '\t'):
		v := p.into[p.section][p.key]
		v.text += "\n" + text
		p.into[p.section][p.key] = v
		return nil
	case text[0] == '[':
		return p.startSection(text)
	}
	return p.setKey(text)
}

func (p *iniParser) startSection(text string) error {
	end := strings.IndexByte(text, ']')
	if end < 2 {
		return fmt.Errorf("section header %q is not of the form [name]", text)
	}
	p.section, p.key = text[1:end], ""
	if p.seen[p.section] && p.section != iniDefault {
		return fmt.Errorf("section [%s] stands twice", p.section)
	}
	p.seen[p.section] = true
	if p.into[p.section] == nil {
		p.into[p.section] = map[string]iniValue{}
	}
	return nil
}

func (p *iniParser) setKey(text string) error {
	if p.section == "" {
		return fmt.Errorf("%q stands before any [section]", text)
	}
	at := strings.IndexAny(text, "=:")
	if at <= 0 {
		return fmt.Errorf("%q is neither key = value nor a [section]", text)
	}
	p.key = strings.ToLower(strings.TrimSpace(text[:at]))
	id := p.section + "\x00" + p.key
	if p.seen[id] {
		return fmt.Errorf("key %q stands twice in section [%s]", p.key, p.section)
	}
	p.seen[id] = true
	p.into[p.section][p.key] = iniValue{
		text:  strings.TrimSpace(text[at+1:]),
		where: fmt.Sprintf("%s:%d", p.name, p.line),
	}
	return nil
}

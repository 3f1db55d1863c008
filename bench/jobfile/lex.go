package jobfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Pos is where a setting was written. Line 0 means that File is not a file
// ("command line", "--set").
type Pos struct {
	File string
	Line int // 1-based
}

// String returns "file:line".
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Error is a fault in a job file or on the command line.
type Error struct {
	Pos Pos
	Err error
}

func (e *Error) Error() string { return e.Pos.String() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func errAt(p Pos, format string, a ...any) error {
	return &Error{Pos: p, Err: fmt.Errorf(format, a...)}
}

// Note is something the user should know that is no error.
type Note struct {
	Pos  Pos
	Text string
	// Warning marks a note about a line that fio reads otherwise than most people do.
	Warning bool
	// Found marks a note on what was found out when the job ran.
	Found bool
}

// String returns "file:line: text".
func (n Note) String() string { return n.Pos.String() + ": " + n.Text }

// Setting is one line NAME[=VALUE] of a section.
type Setting struct {
	Name     string // as written, without surrounding blanks
	Value    string // raw: leading blanks kept, because strict reading needs them
	HasValue bool
	Pos      Pos
}

// Section is one [name] with its settings. Settings of global sections before it
// are not merged in.
type Section struct {
	Name     string
	Pos      Pos
	Global   bool
	Settings []Setting
	// Wall is set on the first job of the second and later job files: fio
	// separates files by a stonewall.
	Wall bool
	// claims are the shares of reads that comments of the section speak of.
	claims []claim
}

// claim is a comment that says how many percent of the I/O are reads.
type claim struct {
	pos   Pos
	reads int
}

var claimPattern = regexp.MustCompile(`(?i)\b(?:(\d{1,3}) ?% (?:random )?reads?\b|reads? \((\d{1,3}) ?%\))`)

// claimOf finds a claim in the comment of a line.
func claimOf(pos Pos, line string) (claim, bool) {
	i := strings.IndexAny(line, ";#")
	if i < 0 {
		return claim{}, false
	}
	m := claimPattern.FindStringSubmatch(line[i:])
	if m == nil {
		return claim{}, false
	}
	n, err := strconv.Atoi(m[1] + m[2])
	return claim{pos, n}, err == nil && n <= 100
}

// maxIncludeDepth bounds nested includes; a cycle is found before it.
const maxIncludeDepth = 16

// maxFileSize bounds one job file in bytes.
const maxFileSize = 4 << 20

// Parser reads job files and command lines into sections. The zero value reads
// from the operating system with fio's traps repaired and warned of.
type Parser struct {
	// Strict reads exactly as fio does.
	Strict bool
	// Only, if not empty, keeps the sections with these names (and global ones).
	Only []string
	// ReadFile replaces os.ReadFile, Getenv os.LookupEnv.
	ReadFile func(name string) ([]byte, error)
	Getenv   func(name string) (string, bool)

	Sections []Section
	Notes    []Note

	files int // job files read
}

func (p *Parser) read(name string) ([]byte, error) {
	read := p.ReadFile
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(name)
	if err == nil && len(data) > maxFileSize {
		err = fmt.Errorf("larger than %d bytes: no job file", maxFileSize)
	}
	return data, err
}

// File reads one job file and appends its sections.
func (p *Parser) File(name string) error {
	data, err := p.read(name)
	if err != nil {
		return fmt.Errorf("cannot read job file: %w", err)
	}
	return p.Bytes(name, data)
}

// Bytes reads the text of a job file called name and appends its sections.
func (p *Parser) Bytes(name string, data []byte) error {
	first := len(p.Sections)
	f := fileReader{p: p, stack: []string{name}}
	if err := f.lines(name, data); err != nil {
		return err
	}
	if p.files++; p.files > 1 {
		for i := first; i < len(p.Sections); i++ {
			if !p.Sections[i].Global {
				p.Sections[i].Wall = true
				break
			}
		}
	}
	return nil
}

// fileReader holds the state of one job file and its includes.
type fileReader struct {
	p     *Parser
	stack []string // files being read, outermost first
	cur   *Section // nil before the first section and inside a skipped one
	skip  bool
	// claims stand before the section they belong to
	claims []claim
}

func (f *fileReader) lines(name string, data []byte) error {
	for n, raw := range bytes.Split(data, []byte("\n")) {
		pos := Pos{File: name, Line: n + 1}
		if c, ok := claimOf(pos, string(raw)); ok && f.cur != nil {
			f.cur.claims = append(f.cur.claims, c)
		} else if ok {
			f.claims = append(f.claims, c)
		}
		line := strip(string(raw))
		if line == "" {
			continue
		}
		if strings.ContainsRune(line, 0) {
			return errAt(pos, "not text (a NUL byte)")
		}
		if err := f.line(pos, line); err != nil {
			return err
		}
	}
	return nil
}

// strip removes blanks and comments as fio does: a ';' or '#' anywhere begins a comment.
func strip(s string) string {
	s = strings.TrimLeft(s, " \t\r\v\f")
	if i := strings.IndexAny(s, ";#"); i >= 0 {
		s = s[:i]
	}
	return strings.TrimRightFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func (f *fileReader) line(pos Pos, line string) error {
	if line[0] == '[' {
		if len(f.stack) > 1 {
			return errAt(pos, "an included file cannot begin a section (%s)", line)
		}
		return f.section(pos, line)
	}
	if f.skip {
		return nil
	}
	if f.cur == nil {
		return errAt(pos, "option %q stands before the first [section]", line)
	}
	if rest, ok := strings.CutPrefix(line, "include"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t' || rest[0] == '=') {
		return f.include(pos, strings.TrimSpace(rest[1:]))
	}
	s, err := f.p.setting(pos, line)
	if err != nil {
		return err
	}
	f.cur.Settings = append(f.cur.Settings, s)
	return nil
}

func (f *fileReader) section(pos Pos, line string) error {
	if !strings.HasSuffix(line, "]") || len(line) < 3 {
		return errAt(pos, "section name %q is not of the form [name]", line)
	}
	name, err := f.p.expand(pos, line[1:len(line)-1])
	if err != nil {
		return err
	}
	global := strings.HasPrefix(name, "global")
	f.cur = nil
	f.skip = !global && len(f.p.Only) > 0 && !slices.Contains(f.p.Only, name)
	if f.skip {
		return nil
	}
	f.p.Sections = append(f.p.Sections, Section{Name: name, Pos: pos, Global: global, claims: f.claims})
	f.claims = nil
	f.cur = &f.p.Sections[len(f.p.Sections)-1]
	return nil
}

// include reads name as seen from the working directory, then as seen from the
// folder of the file that includes it.
func (f *fileReader) include(pos Pos, name string) error {
	if name == "" {
		return errAt(pos, "include without a file name")
	}
	data, err := f.p.read(name)
	if errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(name) {
		beside := filepath.Join(filepath.Dir(pos.File), name)
		if d, err2 := f.p.read(beside); err2 == nil || !errors.Is(err2, fs.ErrNotExist) {
			name, data, err = beside, d, err2
		}
	}
	if err != nil {
		return errAt(pos, "cannot read included file: %w", err)
	}
	if slices.Contains(f.stack, name) {
		return errAt(pos, "%s includes itself (%s)", name, strings.Join(append(f.stack, name), " -> "))
	}
	if len(f.stack) >= maxIncludeDepth {
		return errAt(pos, "includes nested deeper than %d", maxIncludeDepth)
	}
	f.stack = append(f.stack, name)
	defer func() { f.stack = f.stack[:len(f.stack)-1] }()
	return f.lines(name, data)
}

func (p *Parser) setting(pos Pos, line string) (Setting, error) {
	text, err := p.expand(pos, line)
	if err != nil {
		return Setting{}, err
	}
	s := Setting{Pos: pos}
	s.Name, s.Value, s.HasValue = strings.Cut(text, "=")
	s.Name = strings.TrimSpace(s.Name)
	if s.Name == "" {
		return Setting{}, errAt(pos, "%q has no option name before the '='", line)
	}
	return s, nil
}

// Args reads fio's command-line form: arguments --OPTION[=VALUE], where --name
// begins a job and what stands before the first --name is global. Arguments are
// in the order they were given, without the program's own flags.
func (p *Parser) Args(args []string) error {
	pos := Pos{File: "command line"}
	var cur *Section
	for i := 0; i < len(args); i++ {
		text, ok := strings.CutPrefix(args[i], "--")
		if !ok || text == "" {
			return errAt(pos, "%q is neither a job file nor of the form --option=value", args[i])
		}
		name, _, has := strings.Cut(text, "=")
		if !has && i+1 < len(args) && TakesValue(name) && !strings.HasPrefix(args[i+1], "--") {
			i++
			text += "=" + args[i]
		}
		s, err := p.setting(pos, text)
		if err != nil {
			return err
		}
		if s.Name == "name" {
			section := strings.TrimSpace(s.Value)
			if section == "" {
				return errAt(pos, "--name needs a value")
			}
			p.Sections = append(p.Sections, Section{Name: section, Pos: pos, Global: strings.HasPrefix(section, "global")})
			cur = &p.Sections[len(p.Sections)-1]
			continue
		}
		if cur == nil {
			p.Sections = append(p.Sections, Section{Name: "global", Pos: pos, Global: true})
			cur = &p.Sections[len(p.Sections)-1]
		}
		cur.Settings = append(cur.Settings, s)
	}
	return nil
}

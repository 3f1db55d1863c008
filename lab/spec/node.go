package spec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxFile bounds an experiment's file in bytes, maxNesting its brackets within
// brackets: the YAML parser's time grows with the square of both.
const (
	maxFile    = 64 << 10
	maxNesting = 16
)

// document is one YAML file that is being read.
type document struct{ file string }

func (d document) pos(n ast.Node) Pos {
	// The token of a mapping is its first colon.
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && m.Start.Type != token.MappingStartType {
		n = m.Values[0].Key
	}
	return d.at(n.GetToken())
}

func (d document) at(t *token.Token) Pos {
	if t == nil || t.Position == nil {
		return Pos{File: d.file, Line: 1, Column: 1}
	}
	return Pos{d.file, t.Position.Line, t.Position.Column}
}

func (d document) fail(n ast.Node, format string, args ...any) error {
	return errAt(d.pos(n), format, args...)
}

// parse returns the body of the file's one document.
func (d document) parse(data []byte) (ast.Node, error) {
	start := Pos{File: d.file, Line: 1, Column: 1}
	if len(data) > maxFile {
		return nil, errAt(start, "larger than %d bytes: no experiment", maxFile)
	}
	tokens := lexer.Tokenize(string(data))
	if err := d.nesting(tokens); err != nil {
		return nil, err
	}
	f, err := parser.Parse(tokens, 0)
	var bad yaml.Error
	switch {
	case errors.As(err, &bad):
		return nil, errAt(d.at(bad.GetToken()), "%s", bad.GetMessage())
	case err != nil:
		return nil, errAt(start, "%w", err)
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return nil, errAt(start, "the file is empty: an experiment needs at least name, workloads and axes")
	case len(f.Docs) > 1:
		return nil, errAt(d.at(f.Docs[1].Start), "a second document: one file holds one experiment")
	}
	return f.Docs[0].Body, nil
}

func (d document) nesting(tokens token.Tokens) error {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		}
		if depth > maxNesting {
			return errAt(d.at(t), "brackets nested deeper than %d", maxNesting)
		}
	}
	return nil
}

// pairs calls each for every key of a mapping, in order.
func (d document) pairs(n ast.Node, what string, each func(key string, at Pos, value ast.Node) error) error {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return d.fail(n, "%s: want keys with values, one NAME: VALUE a line", what)
	}
	for _, v := range m.Values {
		key, ok := v.Key.(*ast.StringNode)
		if !ok {
			return d.fail(v.Key, "%s: a key is a plain name; anchors, aliases and merged keys are not read", what)
		}
		if err := each(key.Value, d.pos(key), v.Value); err != nil {
			return err
		}
	}
	return nil
}

// keys reads a mapping by a table of what its keys are.
func (d document) keys(n ast.Node, what string, table map[string]func(ast.Node) error) error {
	return d.pairs(n, what, func(key string, at Pos, value ast.Node) error {
		read, ok := table[key]
		if !ok {
			known := slices.Sorted(maps.Keys(table))
			return errAt(at, "unknown key %q in %s%s; known: %s", key, what, didYouMean(key, known), strings.Join(known, ", "))
		}
		return read(value)
	})
}

// text reads one value, whatever YAML takes it for.
func (d document) text(n ast.Node) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", d.fail(n, "a value is missing")
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return "", d.fail(n, "anchors, aliases and tags are not read: write the value itself")
	}
	return "", d.fail(n, "want one value here, not a list or keys")
}

// items returns the elements of a list; a lone value is a list of one.
func (d document) items(n ast.Node) ([]ast.Node, error) {
	s, ok := n.(*ast.SequenceNode)
	switch {
	case !ok:
		return []ast.Node{n}, nil
	case len(s.Values) == 0:
		return nil, d.fail(n, "the list is empty")
	}
	return s.Values, nil
}

// texts reads a list of values.
func (d document) texts(n ast.Node, each func(at Pos, value string) error) error {
	items, err := d.items(n)
	if err != nil {
		return err
	}
	for _, item := range items {
		text, err := d.text(item)
		if err == nil {
			err = each(d.pos(item), text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// into reads one value into p.
func (d document) into(p *string) func(ast.Node) error {
	return func(n ast.Node) (err error) {
		*p, err = d.text(n)
		return err
	}
}

// name reads a name of an experiment, a workload or a sweep, which become parts
// of file names.
func (d document) name(p *string) func(ast.Node) error {
	return func(n ast.Node) error {
		text, err := d.text(n)
		if err != nil {
			return err
		}
		if err := checkName(text); err != nil {
			return d.fail(n, "%w", err)
		}
		*p = text
		return nil
	}
}

func checkName(s string) error {
	plain := s != "" && len(s) <= 64
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		plain = plain && (letter || i > 0 && (c == '.' || c == '_' || c == '-'))
	}
	if !plain {
		return fmt.Errorf("bad name %q: want up to 64 of a-z 0-9 . _ -, the first a letter or digit", s)
	}
	return nil
}

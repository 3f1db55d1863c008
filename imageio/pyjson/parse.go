package pyjson

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep values may lie within each other, and maxDigits is Python's
// own bound of an integer's length, whose conversion takes quadratic time.
const (
	maxDepth  = 500
	maxDigits = 4300
)

// Parse reads exactly one value. Its errors are in Python's words.
func Parse(text []byte) (v any, err error) {
	s := strings.TrimPrefix(string(text), "\ufeff")
	if err := checkUTF8(s); err != nil {
		return nil, err
	}
	p := &parser{s: s}
	defer func() {
		if failed := recover(); failed != nil {
			e, ok := failed.(*syntaxError)
			if !ok {
				panic(failed)
			}
			v, err = nil, e
		}
	}()
	p.space()
	v = p.value(0)
	if p.space(); p.at < len(s) {
		p.fail("Extra data", p.at)
	}
	return v, nil
}

// checkUTF8 names the first byte that cannot be decoded. Surrogates are let through.
func checkUTF8(s string) error {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			if n = surrogate(s[i:]); n == 0 {
				return undecodable(s, i)
			}
		}
		i += n
	}
	return nil
}

func surrogate(s string) int {
	if len(s) >= 3 && s[0] == 0xed && s[1] >= 0xa0 && s[1] <= 0xbf && s[2] >= 0x80 && s[2] <= 0xbf {
		return 3
	}
	return 0
}

func undecodable(s string, at int) error {
	lead, n := s[at], 1
	if lead < 0xc2 || lead > 0xf4 {
		return fmt.Errorf("'utf-8' codec can't decode byte 0x%02x in position %d: invalid start byte", lead, at)
	}
	for at+n < len(s) && !utf8.FullRuneInString(s[at:at+n+1]) {
		n++
	}
	why := "invalid continuation byte"
	if at+n == len(s) {
		why = "unexpected end of data"
	}
	if n > 1 {
		return fmt.Errorf("'utf-8' codec can't decode bytes in position %d-%d: %s", at, at+n-1, why)
	}
	return fmt.Errorf("'utf-8' codec can't decode byte 0x%02x in position %d: %s", lead, at, why)
}

// parser unwinds by a panic with a syntaxError, which Parse answers.
type parser struct {
	s  string
	at int
}

type syntaxError struct{ text string }

func (e *syntaxError) Error() string { return e.text }

func (p *parser) fail(what string, at int) {
	before := p.s[:at]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	panic(&syntaxError{fmt.Sprintf("%s: line %d column %d (char %d)", what, line, column, utf8.RuneCountInString(before))})
}

func (p *parser) space() {
	for p.at < len(p.s) && strings.IndexByte(" \t\n\r", p.s[p.at]) >= 0 {
		p.at++
	}
}

// next reports whether text stands here, and passes it.
func (p *parser) next(text string) bool {
	if !strings.HasPrefix(p.s[p.at:], text) {
		return false
	}
	p.at += len(text)
	return true
}

var words = map[string]any{"null": nil, "true": true, "false": false, "NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}

func (p *parser) value(depth int) any {
	if depth > maxDepth {
		p.fail("Values nested too deeply", p.at)
	}
	switch {
	case p.next(`"`):
		return p.text()
	case p.next("{"):
		return p.object(depth)
	case p.next("["):
		return p.list(depth)
	}
	for word, v := range words {
		if p.next(word) {
			return v
		}
	}
	return p.number()
}

func (p *parser) list(depth int) any {
	all := []any{}
	if p.space(); p.next("]") {
		return all
	}
	for {
		p.space()
		all = append(all, p.value(depth+1))
		if p.space(); p.next("]") {
			return all
		}
		if !p.next(",") {
			p.fail("Expecting ',' delimiter", p.at)
		}
	}
}

// object keeps a key where it stood first, with the value that it had last.
func (p *parser) object(depth int) any {
	all, index := Object{}, map[string]int{}
	if p.space(); p.next("}") {
		return all
	}
	for {
		p.space()
		if !p.next(`"`) {
			p.fail("Expecting property name enclosed in double quotes", p.at)
		}
		key := p.text()
		if p.space(); !p.next(":") {
			p.fail("Expecting ':' delimiter", p.at)
		}
		p.space()
		v := p.value(depth + 1)
		if i, twice := index[key]; twice {
			all[i].Value = v
		} else {
			index[key] = len(all)
			all = append(all, Member{key, v})
		}
		if p.space(); p.next("}") {
			return all
		}
		if !p.next(",") {
			p.fail("Expecting ',' delimiter", p.at)
		}
	}
}

// text reads a string whose quote was passed.
func (p *parser) text() string {
	begin := p.at - 1
	var b []byte
	for p.at < len(p.s) {
		c := p.s[p.at]
		switch {
		case c == '"':
			p.at++
			return string(b)
		case c < 0x20:
			p.fail("Invalid control character at", p.at)
		case c == '\\':
			if p.at++; p.at == len(p.s) {
				p.fail("Unterminated string starting at", begin)
			}
			b = p.escape(b)
		default:
			b = append(b, c)
			p.at++
		}
	}
	p.fail("Unterminated string starting at", begin)
	return ""
}

const escapes, escaped = `"\/bfnrt`, "\"\\/\b\f\n\r\t"

func (p *parser) escape(b []byte) []byte {
	c := p.s[p.at]
	if i := strings.IndexByte(escapes, c); i >= 0 {
		p.at++
		return append(b, escaped[i])
	}
	if c != 'u' {
		p.fail(`Invalid \escape`, p.at-1)
	}
	r, ok := p.hex4()
	if !ok {
		p.fail(`Invalid \uXXXX escape`, p.at)
	}
	if high := r; high >= 0xd800 && high < 0xdc00 && strings.HasPrefix(p.s[p.at:], `\u`) {
		back := p.at
		p.at++
		if low, ok := p.hex4(); ok && low >= 0xdc00 && low < 0xe000 {
			return utf8.AppendRune(b, 0x10000+(high-0xd800)<<10+low-0xdc00)
		}
		p.at = back
	}
	if r >= 0xd800 && r < 0xe000 {
		return append(b, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0xbf, 0x80|byte(r)&0xbf)
	}
	return utf8.AppendRune(b, r)
}

// hex4 passes u and four digits, if they stand here.
func (p *parser) hex4() (rune, bool) {
	if p.at+5 > len(p.s) {
		return 0, false
	}
	n, err := strconv.ParseUint(p.s[p.at+1:p.at+5], 16, 32)
	if err != nil {
		return 0, false
	}
	p.at += 5
	return rune(n), true
}

func (p *parser) digits() bool {
	begin := p.at
	for p.at < len(p.s) && p.s[p.at] >= '0' && p.s[p.at] <= '9' {
		p.at++
	}
	return p.at > begin
}

// number takes as much as is one: of 01 the 0, of 1. the 1.
func (p *parser) number() any {
	begin := p.at
	p.next("-")
	if !p.next("0") && !p.digits() {
		p.fail("Expecting value", begin)
	}
	whole := true
	for _, part := range []string{".", "e+", "e-", "e", "E+", "E-", "E"} {
		back := p.at
		if !p.next(part) {
			continue
		}
		if !p.digits() {
			p.at = back
			continue
		}
		whole = false
		if part != "." {
			break
		}
	}
	text := p.s[begin:p.at]
	if !whole {
		f, _ := strconv.ParseFloat(text, 64) // beyond all numbers: infinite, as there
		return f
	}
	if n := len(strings.TrimPrefix(text, "-")); n > maxDigits {
		panic(&syntaxError{fmt.Sprintf("Exceeds the limit (%d digits) for integer string conversion: value has %d digits", maxDigits, n)})
	}
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		panic(errors.New("pyjson: digits that are no integer"))
	}
	return n
}

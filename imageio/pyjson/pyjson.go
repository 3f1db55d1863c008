// Package pyjson reads and prints JSON, and writes values into messages, as
// Python's json module and repr do. The image transfer API is defined by a program
// that uses them, so their ways are the protocol's: names of keys keep their case,
// of a key that stands twice the last value counts, integers have any size, a
// byte order mark is skipped, and what is not UTF-8 is refused.
package pyjson

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values are nil, bool, *big.Int, float64, string, []any and Object when parsed; what
// is printed may also have int, int64 and []string. A string may hold lone surrogates,
// each in the three bytes that UTF-8 would have for it.

// Member is one entry of an Object.
type Member struct {
	Key   string
	Value any
}

// Object is a JSON object in the order of its keys.
type Object []Member

// Get returns the value of a key.
func (o Object) Get(key string) (v any, ok bool) {
	for i := range o {
		if o[i].Key == key {
			return o[i].Value, true
		}
	}
	return nil, false
}

// With returns o with more members: a key and its value by turns.
func (o Object) With(pairs ...any) Object {
	for i := 0; i < len(pairs); i += 2 {
		o = append(o, Member{pairs[i].(string), pairs[i+1]})
	}
	return o
}

// Append prints v in one line: ", " and ": " between things, and ASCII alone.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, v)
	case string:
		return appendString(b, v)
	case float64:
		return append(b, jsonFloat(v)...)
	case []string:
		return appendList(b, len(v), func(b []byte, i int) []byte { return appendString(b, v[i]) })
	case []any:
		return appendList(b, len(v), func(b []byte, i int) []byte { return Append(b, v[i]) })
	case Object:
		b = append(b, '{')
		for i, m := range v {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(appendString(b, m.Key), ": "...)
			b = Append(b, m.Value)
		}
		return append(b, '}')
	}
	return append(b, integer(v)...)
}

func appendList(b []byte, n int, item func(b []byte, i int) []byte) []byte {
	b = append(b, '[')
	for i := range n {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = item(b, i)
	}
	return append(b, ']')
}

// integer is an integer's digits. Anything else is a mistake of the caller's.
func integer(v any) string {
	switch v := v.(type) {
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case *big.Int:
		return v.String()
	}
	panic("pyjson: a value of a type that JSON does not have")
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+") + "inity"
	}
	return reprFloat(f)
}

var shortEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range runes(s) {
		switch {
		case shortEscapes[r] != "":
			b = append(b, shortEscapes[r]...)
		case r >= 0x20 && r < 0x7f:
			b = append(b, byte(r))
		case r > 0xffff:
			r -= 0x10000
			b = appendHex(b, `\u`, 0xd800+r>>10, 4)
			b = appendHex(b, `\u`, 0xdc00+r&0x3ff, 4)
		default:
			b = appendHex(b, `\u`, r, 4)
		}
	}
	return append(b, '"')
}

func appendHex(b []byte, prefix string, r rune, digits int) []byte {
	text := strconv.FormatInt(int64(r), 16)
	return append(append(append(b, prefix...), strings.Repeat("0", digits-len(text))...), text...)
}

// runes decodes a string with lone surrogates in it.
func runes(s string) []rune {
	var all []rune
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 && i+3 <= len(s) && s[i] == 0xed && s[i+1] >= 0xa0 {
			r, n = 0xd000|rune(s[i+1]&0x3f)<<6|rune(s[i+2]&0x3f), 3
		}
		all = append(all, r)
		i += n
	}
	return all
}

// Repr is Python's repr of a value, as the API's error messages show what they refuse.
func Repr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return reprString(v)
	case float64:
		return reprFloat(v)
	case []string:
		return string(appendList(nil, len(v), func(b []byte, i int) []byte { return append(b, reprString(v[i])...) }))
	case []any:
		return string(appendList(nil, len(v), func(b []byte, i int) []byte { return append(b, Repr(v[i])...) }))
	case Object:
		pairs := make([]string, len(v))
		for i, m := range v {
			pairs[i] = reprString(m.Key) + ": " + Repr(m.Value)
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	return integer(v)
}

// reprFloat has a point or an exponent always, and the latter from 1e16 on.
func reprFloat(f float64) string {
	if math.IsNaN(f) {
		return "nan"
	}
	if math.IsInf(f, 0) {
		return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64), "+"))
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(scientific, "e")
	if n, _ := strconv.Atoi(exponent); n < -4 || n >= 16 {
		return scientific
	}
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	return plain
}

// reprString is in single quotes unless that would need escapes that double ones do not.
func reprString(s string) string {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b := utf8.AppendRune(nil, quote)
	for _, r := range runes(s) {
		switch {
		case r == quote || r == '\\':
			b = utf8.AppendRune(append(b, '\\'), r)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r <= 0xff:
			b = appendHex(b, `\x`, r, 2)
		case r <= 0xffff:
			b = appendHex(b, `\u`, r, 4)
		default:
			b = appendHex(b, `\U`, r, 8)
		}
	}
	return string(utf8.AppendRune(b, quote))
}

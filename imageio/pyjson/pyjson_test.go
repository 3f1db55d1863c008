package pyjson

import (
	"strings"
	"testing"
)

// What Python 3.11 answers to json.loads, repr and json.dumps.
var golden = []struct{ text, err, repr, dumps string }{
	{"", "Expecting value: line 1 column 1 (char 0)", "", ""},
	{"{}", "", "{}", "{}"},
	{"[]", "", "[]", "[]"},
	{"null", "", "None", "null"},
	{"true", "", "True", "true"},
	{"1", "", "1", "1"},
	{"-0", "", "0", "0"},
	{"1.5", "", "1.5", "1.5"},
	{"1e2", "", "100.0", "100.0"},
	{"1e16", "", "1e+16", "1e+16"},
	{"1e22", "", "1e+22", "1e+22"},
	{"0.00001", "", "1e-05", "1e-05"},
	{"1.0e-7", "", "1e-07", "1e-07"},
	{"123456789012345678.5", "", "1.2345678901234568e+17", "1.2345678901234568e+17"},
	{"1e400", "", "inf", "Infinity"},
	{"-1E400", "", "-inf", "-Infinity"},
	{"NaN", "", "nan", "NaN"},
	{"[Infinity, -Infinity]", "", "[inf, -inf]", "[Infinity, -Infinity]"},
	{"99999999999999999999", "", "99999999999999999999", "99999999999999999999"},
	{"{\"a\":1,\"b\":2,\"a\":3}", "", "{'a': 3, 'b': 2}", "{\"a\": 3, \"b\": 2}"},
	{"{\"A\":1,\"a\":2}", "", "{'A': 1, 'a': 2}", "{\"A\": 1, \"a\": 2}"},
	{" [1, \"a\", null, true, 1.5, {\"k\": \"v\"}]\n", "", "[1, 'a', None, True, 1.5, {'k': 'v'}]", "[1, \"a\", null, true, 1.5, {\"k\": \"v\"}]"},
	{"[1] x", "Extra data: line 1 column 5 (char 4)", "", ""},
	{"{}{}", "Extra data: line 1 column 3 (char 2)", "", ""},
	{"{\"a\":1,}", "Expecting property name enclosed in double quotes: line 1 column 8 (char 7)", "", ""},
	{"{'a':1}", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)", "", ""},
	{"{\"a\"", "Expecting ':' delimiter: line 1 column 5 (char 4)", "", ""},
	{"{\"a\" 1}", "Expecting ':' delimiter: line 1 column 6 (char 5)", "", ""},
	{"{\"a\":1 \"b\":2}", "Expecting ',' delimiter: line 1 column 8 (char 7)", "", ""},
	{"{1:2}", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)", "", ""},
	{"[1 2]", "Expecting ',' delimiter: line 1 column 4 (char 3)", "", ""},
	{"[1,]", "Expecting value: line 1 column 4 (char 3)", "", ""},
	{"[1,2", "Expecting ',' delimiter: line 1 column 5 (char 4)", "", ""},
	{"\"abc", "Unterminated string starting at: line 1 column 1 (char 0)", "", ""},
	{"\"\\x\"", "Invalid \\escape: line 1 column 2 (char 1)", "", ""},
	{"\"\\u12\"", "Invalid \\uXXXX escape: line 1 column 3 (char 2)", "", ""},
	{"\"\\u12g4\"", "Invalid \\uXXXX escape: line 1 column 3 (char 2)", "", ""},
	{"\"\\", "Unterminated string starting at: line 1 column 1 (char 0)", "", ""},
	{"\"a\nb\"", "Invalid control character at: line 1 column 3 (char 2)", "", ""},
	{"01", "Extra data: line 1 column 2 (char 1)", "", ""},
	{"+1", "Expecting value: line 1 column 1 (char 0)", "", ""},
	{"1.", "Extra data: line 1 column 2 (char 1)", "", ""},
	{"-", "Expecting value: line 1 column 1 (char 0)", "", ""},
	{"nul", "Expecting value: line 1 column 1 (char 0)", "", ""},
	{"{\n \"a\":\n  x}", "Expecting value: line 3 column 3 (char 10)", "", ""},
	{"{\"a\":\xc3\xa9}", "Expecting value: line 1 column 6 (char 5)", "", ""},
	{"\"it's\"", "", "\"it's\"", "\"it's\""},
	{"\"it's \\\"so\\\"\"", "", "'it\\'s \"so\"'", "\"it's \\\"so\\\"\""},
	{"\"a\\n\\t\\r\\\\\\/\\b\\f\"", "", "'a\\n\\t\\r\\\\/\\x08\\x0c'", "\"a\\n\\t\\r\\\\/\\b\\f\""},
	{"\"\\u0007\\u007f\\u00a0\\u00ad\\u200b\\ud83d\\ude00\"", "", "'\\x07\\x7f\\xa0\\xad\\u200b\xf0\x9f\x98\x80'", "\"\\u0007\\u007f\\u00a0\\u00ad\\u200b\\ud83d\\ude00\""},
	{"\"\\ud800\"", "", "'\\ud800'", "\"\\ud800\""},
	{"\"\\ud800\\u0041\"", "", "'\\ud800A'", "\"\\ud800A\""},
	{"\"\xc3\xa9\xe4\xb8\xad\"", "", "'\xc3\xa9\xe4\xb8\xad'", "\"\\u00e9\\u4e2d\""},
	{"\xef\xbb\xbf{\"op\": \"flush\"}", "", "{'op': 'flush'}", "{\"op\": \"flush\"}"},
	{"\"\xff\"", "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte", "", ""},
	{"\"\xc3\"", "'utf-8' codec can't decode byte 0xc3 in position 1: invalid continuation byte", "", ""},
	{"\"\xc3", "'utf-8' codec can't decode byte 0xc3 in position 1: unexpected end of data", "", ""},
	{"\"\xe4\xb8\"", "'utf-8' codec can't decode bytes in position 1-2: invalid continuation byte", "", ""},
	{"\"\xc0\x80\"", "'utf-8' codec can't decode byte 0xc0 in position 1: invalid start byte", "", ""},
	{"\"\xf5\"", "'utf-8' codec can't decode byte 0xf5 in position 1: invalid start byte", "", ""},
	{"\x0b1", "Expecting value: line 1 column 1 (char 0)", "", ""},
	{"[[[]]]", "", "[[[]]]", "[[[]]]"},
}

func TestGolden(t *testing.T) {
	for _, c := range golden {
		v, err := Parse([]byte(c.text))
		if err != nil || c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: %v, want %s", c.text, err, c.err)
			}
			continue
		}
		if got := Repr(v); got != c.repr {
			t.Errorf("repr of %q: %s, want %s", c.text, got, c.repr)
		}
		if got := string(Append(nil, v)); got != c.dumps {
			t.Errorf("dumps of %q: %s, want %s", c.text, got, c.dumps)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 60000), strings.Repeat(`{"a":`, 12000), strings.Repeat("9", 5000)} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.10q… is taken", text)
		}
	}
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	if _, err := Parse([]byte(deep)); err != nil {
		t.Error(err)
	}
}

// What is printed can be read again, and is then printed alike.
func FuzzParse(f *testing.F) {
	for _, c := range golden {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		Repr(v)
		once := Append(nil, v)
		again, err := Parse(once)
		if err != nil || string(Append(nil, again)) != string(once) {
			t.Errorf("%q: printed as %q, which is read as %v (%v)", text, once, again, err)
		}
	})
}

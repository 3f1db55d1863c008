package result

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// object is a JSON object whose members keep their order; fio's consumers and
// people who compare files by eye rely on it.
type object []member

type member struct {
	key   string
	value any // object, []any, string, bool, float64, or an integer
}

func (o *object) add(key string, value any) { *o = append(*o, member{key, value}) }

// treeWriter writes in fio's layout: two blanks a level, " : " after keys, floats
// with six digits.
type treeWriter struct {
	w   io.Writer
	err error
}

func (t *treeWriter) print(s string) {
	if t.err == nil {
		_, t.err = io.WriteString(t.w, s)
	}
}

func (t *treeWriter) value(v any, indent string) {
	switch v := v.(type) {
	case object:
		t.list("{", "}", len(v), indent, func(i int, in string) {
			key, _ := json.Marshal(v[i].key)
			t.print(string(key) + " : ")
			t.value(v[i].value, in)
		})
	case []any:
		t.list("[", "]", len(v), indent, func(i int, in string) { t.value(v[i], in) })
	case []float64:
		t.list("[", "]", len(v), indent, func(i int, in string) { t.value(v[i], in) })
	case float64:
		t.print(strconv.FormatFloat(v, 'f', 6, 64))
	case string, bool:
		b, err := json.Marshal(v)
		if err != nil {
			t.err = err
		}
		t.print(string(b))
	default:
		t.print(fmt.Sprint(v))
	}
}

func (t *treeWriter) list(open, end string, n int, indent string, each func(i int, indent string)) {
	t.print(open)
	inner := indent + "  "
	for i := range n {
		if i > 0 {
			t.print(",")
		}
		t.print("\n" + inner)
		each(i, inner)
	}
	if n > 0 {
		t.print("\n" + indent)
	}
	t.print(end)
}

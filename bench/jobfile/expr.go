package jobfile

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxExprDepth bounds nested parentheses and signs.
const maxExprDepth = 64

// expression is a recursive-descent evaluator of + - * / % ^ and parentheses.
// Intermediate values are float64; integers are exact to 2^53.
type expression struct {
	s      string
	pos    int
	depth  int
	number func(s string) (v float64, n int, err error)
}

// evaluate calculates s. number reads one literal at the start of its argument.
func evaluate(s string, number func(string) (float64, int, error)) (float64, error) {
	e := expression{s: s, number: number}
	v, err := e.sum()
	if err != nil {
		return 0, err
	}
	e.blanks()
	if e.pos != len(e.s) {
		return 0, fmt.Errorf("unexpected %q in %q", e.s[e.pos:], s)
	}
	if math.IsNaN(v) || math.Abs(v) > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is out of range", s)
	}
	return v, nil
}

func (e *expression) blanks() {
	for e.pos < len(e.s) && (e.s[e.pos] == ' ' || e.s[e.pos] == '\t') {
		e.pos++
	}
}

// operator consumes one of ops and returns it, or 0.
func (e *expression) operator(ops string) byte {
	e.blanks()
	if e.pos < len(e.s) && strings.IndexByte(ops, e.s[e.pos]) >= 0 {
		e.pos++
		return e.s[e.pos-1]
	}
	return 0
}

func (e *expression) sum() (float64, error) {
	v, err := e.product()
	for err == nil {
		op := e.operator("+-")
		if op == 0 {
			break
		}
		var w float64
		w, err = e.product()
		if op == '-' {
			w = -w
		}
		v += w
	}
	return v, err
}

var errDivision = errors.New("division by zero")

func (e *expression) product() (float64, error) {
	v, err := e.power()
	for err == nil {
		op := e.operator("*/%")
		if op == 0 {
			break
		}
		var w float64
		if w, err = e.power(); err != nil {
			break
		}
		switch {
		case op == '*':
			v *= w
		case w == 0:
			err = errDivision
		case op == '/':
			v /= w
		default:
			v = math.Mod(v, w)
		}
	}
	return v, err
}

func (e *expression) power() (float64, error) {
	v, err := e.atom()
	if err != nil || e.operator("^") == 0 {
		return v, err
	}
	w, err := e.nested(e.power)
	return math.Pow(v, w), err
}

func (e *expression) nested(f func() (float64, error)) (float64, error) {
	if e.depth++; e.depth > maxExprDepth {
		return 0, errors.New("expression nested too deeply")
	}
	defer func() { e.depth-- }()
	return f()
}

func (e *expression) atom() (float64, error) {
	switch e.operator("(-+") {
	case '-':
		v, err := e.nested(e.atom)
		return -v, err
	case '+':
		return e.nested(e.atom)
	case '(':
		v, err := e.nested(e.sum)
		if err == nil && e.operator(")") == 0 {
			err = errors.New("missing )")
		}
		return v, err
	}
	v, n, err := e.number(e.s[e.pos:])
	e.pos += n
	return v, err
}

// plainNumber reads a decimal number.
func plainNumber(s string) (float64, int, error) {
	n := 0
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	v, err := strconv.ParseFloat(s[:n], 64)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %q", errNumber, s)
	}
	return v, n, nil
}

// exprNumber reads a number with an optional size suffix.
func (r *reader) exprNumber(s string) (float64, int, error) {
	v, n, err := plainNumber(s)
	if err != nil {
		return 0, 0, err
	}
	end := n
	for end < len(s) && (s[end] >= 'a' && s[end] <= 'z' || s[end] >= 'A' && s[end] <= 'Z') {
		end++
	}
	mult, err := r.multiplier(s[n:end], strings.ToLower(s[n:end]))
	return v * float64(mult), end, err
}

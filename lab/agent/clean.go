package agent

import (
	"strings"
	"unicode"
)

// maxText bounds a text of a node, in bytes.
const maxText = 4 << 10

// oneLine is an error as a message has it.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// clean makes one short line of a text that came from a node. It is shown on the
// lab's terminal, which a guest must not control.
func clean(s string) string {
	s = printable(s, false)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}

// printable replaces what a terminal acts on; newlines and tabs stay if lines is set.
func printable(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case lines && (r == '\n' || r == '\t'):
			return r
		case !unicode.IsPrint(r):
			return ' '
		}
		return r
	}, s)
}

// clean cleans the texts of a result.
func (r *Result) clean() {
	r.Err, r.Bound = clean(r.Err), clean(r.Bound)
	r.Text = printable(r.Text, true)
	for i := range r.Notes {
		r.Notes[i] = clean(r.Notes[i])
	}
	for i := range r.Jobs {
		j := &r.Jobs[i]
		j.Name, j.Err = clean(j.Name), clean(j.Err)
	}
}

func (h *Hello) clean() {
	h.Version, h.Kernel, h.Fio = clean(h.Version), clean(h.Kernel), clean(h.Fio)
}

func (p *Prepared) clean() {
	p.Device, p.Scheduler, p.Mount, p.Fio = clean(p.Device), clean(p.Scheduler), clean(p.Mount), clean(p.Fio)
}

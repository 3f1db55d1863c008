package spec

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse: no file makes the reader or the expansion panic, errors have a place,
// and what is read expands to cells with names of their own or to an error. The
// seeds are small: the built-in experiments are too long to be mutated well.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "job-file") {
			return // reads files of this machine
		}
		s, err := Parse("x.yaml", []byte(text))
		if err == nil {
			expand(t, s)
			return
		}
		var at *Error
		if !errors.As(err, &at) || at.Pos.File != "x.yaml" || at.Pos.Line < 1 || strings.ContainsRune(err.Error(), '\x00') && !strings.ContainsRune(text, '\x00') {
			t.Errorf("%T without a place: %v", err, err)
		}
	})
}

func expand(t *testing.T, s *Spec) {
	list, err := s.Cells()
	var at *Error
	switch {
	case err == nil && len(list) == 0:
		t.Error("no cells and no error")
	case err != nil && !errors.As(err, &at):
		t.Errorf("%T: %v", err, err)
	}
	names := map[string]bool{}
	for _, c := range list {
		name := c.FileName()
		if names[name] || strings.ContainsAny(name, "/\x00") {
			t.Errorf("cell %s has the file name %q, which is taken or none", c.ID, name)
		}
		names[name] = true
	}
}

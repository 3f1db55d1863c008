package spec

import (
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

func (r *fileReader) sweeps(n ast.Node) error {
	items, err := r.items(n)
	if err != nil {
		return err
	}
	for i, item := range items {
		w := Sweep{Pos: r.pos(item)}
		if err := r.sweep(&w, item, i); err != nil {
			return err
		}
		if slices.ContainsFunc(r.spec.Sweeps, func(o Sweep) bool { return o.Name == w.Name }) {
			return r.fail(item, "a second sweep called %s", w.Name)
		}
		r.spec.Sweeps = append(r.spec.Sweeps, w)
	}
	return nil
}

func (r *fileReader) sweep(w *Sweep, n ast.Node, index int) error {
	err := r.keys(n, "a sweep", map[string]func(ast.Node) error{
		"name": r.name(&w.Name), "title": r.into(&w.Title), "text": r.into(&w.Text),
		"client": func(n ast.Node) error { return r.ofSweep(n, "client", func(s *Spec) { w.Client = s.Client }) },
		"nodes":  func(n ast.Node) error { return r.ofSweep(n, "nodes", func(s *Spec) { w.Nodes = s.Nodes }) },
		"axes":   r.axes(w),
		"set":    r.fixed(&w.Fixed), "options": r.options(&w.Options),
		"workloads": func(n ast.Node) error {
			return r.texts(n, func(at Pos, name string) error {
				if slices.Contains(w.Workloads, name) {
					return errAt(at, "workload %s is named twice", name)
				}
				w.Workloads = append(w.Workloads, name)
				return nil
			})
		},
		"exclude": func(n ast.Node) error { r.excludes = append(r.excludes, exclusion{index, n}); return nil },
	})
	switch {
	case err != nil:
		return err
	case w.Name == "":
		return r.fail(n, "a sweep without a name: add name: NAME")
	case len(w.Axes) == 0:
		return r.fail(n, "sweep %s varies nothing: add axes: {AXIS: [VALUE, …]}", w.Name)
	}
	return nil
}

// ofSweep reads a field of the experiment that a sweep may have as well.
func (r *fileReader) ofSweep(n ast.Node, name string, take func(*Spec)) error {
	own := defaultSpec()
	if err := r.fieldKeys(own, "")[name](n); err != nil {
		return err
	}
	take(own)
	return nil
}

// axes reads {axis: [values] | value}.
func (r *fileReader) axes(w *Sweep) func(ast.Node) error {
	return func(n ast.Node) error {
		return r.pairs(n, "axes", func(name string, at Pos, values ast.Node) error {
			row, err := axisAt(name, at)
			if err != nil {
				return err
			}
			x := Axis{Name: name, Pos: at}
			err = r.texts(values, func(at Pos, text string) error {
				value, err := row.shortest(text)
				switch {
				case err != nil:
					return errAt(at, "%s: %w", name, err)
				case slices.Contains(x.Values, value):
					return errAt(at, "%s: the value %s is there twice", name, value)
				}
				x.Values = append(x.Values, value)
				return nil
			})
			w.Axes = append(w.Axes, x)
			return err
		})
	}
}

// fixed reads {axis: value}.
func (r *fileReader) fixed(p *[]Fixed) func(ast.Node) error {
	return func(n ast.Node) error {
		return r.pairs(n, "set", func(name string, at Pos, value ast.Node) error {
			row, err := axisAt(name, at)
			if err != nil {
				return err
			}
			text, err := r.text(value)
			if err != nil {
				return err
			}
			if text, err = row.shortest(text); err != nil {
				return r.fail(value, "%s: %w", name, err)
			}
			*p = append(*p, Fixed{name, text, at})
			return nil
		})
	}
}

func axisAt(name string, at Pos) (*axis, error) {
	a, ok := findAxis(name)
	if !ok {
		return nil, errAt(at, "unknown axis %q%s; known: %s", name, didYouMean(name, axisNames()), strings.Join(axisNames(), ", "))
	}
	return a, nil
}

// exclude reads [{axis: value, …}], combinations of values that the sweep has.
func (r *fileReader) exclude(w *Sweep, n ast.Node) error {
	items, err := r.items(n)
	if err != nil {
		return err
	}
	for _, item := range items {
		combination := map[string]string{}
		err := r.pairs(item, "exclude", func(name string, at Pos, value ast.Node) error {
			text, err := r.excluded(w, name, at, value)
			combination[name] = text
			return err
		})
		if err != nil {
			return err
		}
		if len(combination) == 0 {
			return r.fail(item, "exclude: a combination without values would leave out everything")
		}
		w.Exclude = append(w.Exclude, combination)
	}
	return nil
}

func (r *fileReader) excluded(w *Sweep, name string, at Pos, value ast.Node) (string, error) {
	i := slices.IndexFunc(w.Axes, func(x Axis) bool { return x.Name == name })
	if i < 0 {
		var varied []string
		for _, x := range w.Axes {
			varied = append(varied, x.Name)
		}
		return "", errAt(at, "exclude: sweep %s does not vary %q%s; it varies %s", w.Name, name, didYouMean(name, varied), strings.Join(varied, ", "))
	}
	row, err := axisAt(name, at)
	if err != nil {
		return "", err
	}
	text, err := r.text(value)
	if err != nil {
		return "", err
	}
	text, err = row.shortest(text)
	if err == nil && !slices.Contains(w.Axes[i].Values, text) {
		err = noneOf(text, w.Axes[i].Values)
	}
	if err != nil {
		return "", r.fail(value, "exclude: %s: %w", name, err)
	}
	return text, nil
}

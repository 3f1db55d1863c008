package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

// Set changes a parameter by name: a field of the experiment (nodes, memory,
// disk, …), the lists of workloads or sweeps that are kept, an axis, else a fio
// option. An axis takes a list with commas: it replaces the values in every sweep
// that varies the axis; elsewhere one value fixes it, and more than one make the
// sweep vary it. An error is an *Error and leaves the experiment as it was.
func (s *Spec) Set(name, value string) error {
	pos := Pos{File: "--set " + name + "=" + value}
	if err := s.set(name, value, pos); err != nil {
		return &Error{Pos: pos, Err: err}
	}
	s.changed = true
	s.sets = append(s.sets, name+"="+value)
	return nil
}

func (s *Spec) set(name, value string, pos Pos) error {
	switch name {
	case "workloads":
		return s.keepWorkloads(strings.Split(value, ","))
	case "sweeps":
		return s.keepSweeps(strings.Split(value, ","))
	}
	for i := range fields {
		if fields[i].set == name {
			return s.setField(&fields[i], value, pos)
		}
	}
	option := canonical(name)
	if a, ok := findAxis(option); ok {
		return s.setAxis(a, value, pos)
	}
	if _, ok := jobfile.Canonical(name); !ok {
		return fmt.Errorf("no field, axis or fio option is called %q%s", name, didYouMean(name, settable()))
	}
	if err := jobfile.CheckOption(name, value); err != nil {
		return err
	}
	for i := range s.Sweeps {
		s.Sweeps[i].Options = without(s.Sweeps[i].Options, option)
	}
	s.Options = append(without(s.Options, option), name+"="+value)
	return nil
}

// settable are all names that Set knows.
func settable() []string {
	names := []string{"workloads", "sweeps"}
	for i := range fields {
		names = append(names, fields[i].set)
	}
	return slices.Concat(names, axisNames(), jobfile.OptionNames())
}

// without returns options without the one called name, by whatever name.
func without(options []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(options), func(o string) bool {
		other, _, _ := strings.Cut(o, "=")
		return canonical(other) == name
	})
}

// setField sets one field. Where sweeps have their own it wins, except over client:
// who the clients are is what such a sweep is about.
func (s *Spec) setField(f *field, value string, pos Pos) error {
	own := func(w Sweep) bool { return w.Client != "" }
	if f.path == "client" && !slices.ContainsFunc(s.Sweeps, func(w Sweep) bool { return !own(w) }) {
		return fmt.Errorf("every sweep says itself who its clients are; choose some by --set sweeps=%s", strings.Join(s.SweepNames(), ","))
	}
	if err := f.assign(s, value); err != nil {
		return err
	}
	s.at[f.path] = pos
	if f.path == "nodes" {
		for i := range s.Sweeps {
			s.Sweeps[i].Nodes = 0
		}
	}
	return nil
}

func (s *Spec) setAxis(a *axis, value string, pos Pos) error {
	list := []string{value}
	if !a.whole {
		list = strings.Split(value, ",")
	}
	for i, v := range list {
		short, err := a.shortest(v)
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		if slices.Contains(list[:i], short) {
			return fmt.Errorf("%s: the value %s is there twice", a.name, short)
		}
		list[i] = short
	}
	for i := range s.Sweeps {
		s.Sweeps[i].setAxis(Axis{a.name, list, pos})
	}
	s.Fixed = replace(s.Fixed, a.name)
	if len(list) == 1 {
		s.Fixed = append(s.Fixed, Fixed{a.name, list[0], pos})
	}
	return nil
}

// setAxis gives the axis its values if the sweep varies it, or if there are several.
func (w *Sweep) setAxis(x Axis) {
	w.Fixed = replace(w.Fixed, x.Name)
	i := slices.IndexFunc(w.Axes, func(o Axis) bool { return o.Name == x.Name })
	switch {
	case i >= 0:
		w.Axes = slices.Clone(w.Axes)
		w.Axes[i] = x
	case len(x.Values) > 1:
		w.Axes = append(slices.Clone(w.Axes), x)
	}
}

// replace returns the list without the axis, for a new value.
func replace(list []Fixed, axis string) []Fixed {
	return slices.DeleteFunc(slices.Clone(list), func(f Fixed) bool { return f.Axis == axis })
}

// SweepNames are the names of the sweeps, in order.
func (s *Spec) SweepNames() []string {
	var names []string
	for _, w := range s.Sweeps {
		names = append(names, w.Name)
	}
	return names
}

func (s *Spec) keepSweeps(keep []string) error {
	if err := allKnown("sweep", keep, s.SweepNames()); err != nil {
		return err
	}
	s.Sweeps = slices.DeleteFunc(slices.Clone(s.Sweeps), func(w Sweep) bool { return !slices.Contains(keep, w.Name) })
	return nil
}

func (s *Spec) keepWorkloads(keep []string) error {
	if err := allKnown("workload", keep, s.WorkloadNames()); err != nil {
		return err
	}
	unwanted := func(name string) bool { return !slices.Contains(keep, name) }
	var sweeps []Sweep
	for _, w := range s.Sweeps {
		w.Workloads = slices.DeleteFunc(slices.Clone(w.Workloads), unwanted)
		if len(w.Workloads) > 0 {
			sweeps = append(sweeps, w)
		}
	}
	if len(sweeps) == 0 {
		return fmt.Errorf("no sweep is left that runs %s", strings.Join(keep, " or "))
	}
	s.Sweeps = sweeps
	s.Workloads = slices.DeleteFunc(slices.Clone(s.Workloads), func(w Workload) bool { return unwanted(w.Name) })
	return nil
}

func allKnown(what string, names, known []string) error {
	for _, n := range names {
		if !slices.Contains(known, n) {
			return fmt.Errorf("no %s %q%s; there are: %s", what, n, didYouMean(n, known), strings.Join(known, ", "))
		}
	}
	return nil
}

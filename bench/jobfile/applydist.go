package jobfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var distDefaults = map[string]float64{"zipf": 1.1, "pareto": 0.2, "normal": 0}

func applyDistribution(a *applier, s string) error {
	kind, arg, has := strings.Cut(strings.TrimSpace(s), ":")
	kind, err := a.enum(kind, []string{"random", "zipf", "pareto", "normal", "gauss", "zoned", "zoned_abs", "sequence"})
	if err != nil {
		return err
	}
	if kind == "gauss" {
		kind = "normal"
	}
	d := Distribution{Kind: kind, Param: distDefaults[kind], Center: -1}
	switch kind {
	case "zoned", "zoned_abs":
		err = a.zones(arg, &d)
	case "sequence":
		err = a.order(arg, &d)
	case "random":
	default:
		if has {
			err = d.parameters(arg)
		}
	}
	if err == nil {
		a.job.Distribution = d
	}
	return err
}

func (d *Distribution) parameters(arg string) (err error) {
	param, center, has := strings.Cut(arg, ":")
	if param = firstOf(param); param != "" {
		if d.Param, err = strconv.ParseFloat(param, 64); err != nil {
			return fmt.Errorf("%q is no number", param)
		}
	}
	if has {
		if d.Center, err = strconv.ParseFloat(center, 64); err != nil || d.Center < 0 || d.Center > 1 {
			return fmt.Errorf("center %q is not between 0 and 1", center)
		}
	}
	switch {
	case d.Kind == "zipf" && (d.Param == 1 || d.Param <= 0 || d.Param > 100):
		return errors.New("zipf's theta must be above 0 and other than 1.0")
	case d.Kind == "pareto" && (d.Param <= 0 || d.Param >= 1):
		return errors.New("pareto's value must be between 0 and 1")
	case d.Kind == "normal" && (d.Param < 0 || d.Param >= 100):
		return errors.New("the normal distribution's deviation must be between 0 and 100 percent")
	}
	return nil
}

// zones reads "50/5:30/15:20/" for one to three directions.
func (a *applier) zones(arg string, d *Distribution) error {
	fields := strings.Split(arg, ",")
	if len(fields) > Dirs {
		return fmt.Errorf("%q has more than %d lists", arg, Dirs)
	}
	for dir := range Dirs {
		zones, err := a.zoneList(fields[min(dir, len(fields)-1)], d.Kind == "zoned_abs")
		if err != nil {
			return err
		}
		d.Zones[dir] = zones
	}
	return nil
}

func (a *applier) zoneList(s string, absolute bool) ([]Zone, error) {
	var out []Zone
	access, percent, missing := 0, 0, 0
	for entry := range strings.SplitSeq(s, ":") {
		if entry = strings.TrimSpace(entry); entry == "" {
			break
		}
		z, err := a.zone(entry, absolute)
		if err != nil {
			return nil, err
		}
		access += z.Access
		percent += z.Percent
		if z.Percent == 0 && z.Size == 0 {
			missing++
		}
		out = append(out, z)
	}
	if access != 100 || percent > 100 {
		return nil, fmt.Errorf("%q: the shares sum up to %d %% of the accesses (100 wanted) and %d %% of the file", s, access, percent)
	}
	if absolute && missing > 0 {
		return nil, fmt.Errorf("%q: zoned_abs needs a size in each entry", s)
	}
	for i := range out {
		if out[i].Percent == 0 && out[i].Size == 0 {
			out[i].Percent = (100 - percent) / missing
		}
	}
	return out, nil
}

// zone reads "50/5", "50/10g" if absolute, or "50/", which leaves the size open.
func (a *applier) zone(entry string, absolute bool) (z Zone, err error) {
	access, size, _ := strings.Cut(entry, "/")
	if z.Access, err = strconv.Atoi(strings.TrimSpace(access)); err != nil || z.Access < 0 || z.Access > 100 {
		return z, fmt.Errorf("%q: the share of accesses is not between 0 and 100", entry)
	}
	switch size = strings.TrimSpace(size); {
	case size == "":
	case absolute:
		if z.Size, err = a.int(size); err == nil && z.Size < 1 {
			err = fmt.Errorf("%q: the size is not positive", entry)
		}
	default:
		if z.Percent, err = strconv.Atoi(size); err == nil && (z.Percent < 1 || z.Percent > 100) {
			err = fmt.Errorf("%q: the share of the file is not between 1 and 100", entry)
		}
	}
	return z, err
}

// maxOrder bounds the list of random_distribution=sequence.
const maxOrder = 1 << 16

func (a *applier) order(arg string, d *Distribution) error {
	for f := range strings.SplitSeq(arg, ",") {
		v, err := a.int(f)
		if err != nil {
			return err
		}
		if v < 0 || len(d.Order) == maxOrder {
			return fmt.Errorf("sequence %q: indices are 0 or more, %d at most", arg, maxOrder)
		}
		d.Order = append(d.Order, v)
	}
	return nil
}

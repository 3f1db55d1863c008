package lab

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/report"
)

func (s *study) report(ctx context.Context, tables [][]cell, cells []cell) *findings {
	res := &findings{
		doc: &report.Document{Title: "Fast zeroing: one image, two servers, every strategy", Facts: s.facts(ctx)},
		raw: struct {
			Experiment string            `json:"experiment"`
			Parameters map[string]string `json:"parameters"`
			Cells      []cell            `json:"cells"`
		}{"fast-zero", s.params.values, cells},
	}
	for _, t := range tables {
		name, title := "fast-zero", "Block status off"
		if t[0].BlockStatus {
			name, title = "fast-zero-status", "Block status on, the target is empty"
		}
		res.charts = append(res.charts, namedChart{name, bars(title, t)})
		res.doc.Sections = append(res.doc.Sections, report.Section{Title: title, Items: []report.Item{table(t)}})
	}
	res.doc.Sections = append(res.doc.Sections, report.Section{Title: "What it shows", Text: story(cells)},
		report.Section{Title: "Legend", Text: legend})
	return res
}

func table(cells []cell) *report.Table {
	t := &report.Table{Columns: []report.Column{
		{Name: "server"}, {Name: "fastzeromode"}, {Name: "strategy"}, {Name: "time", Unit: "s", Digits: 2}, {Name: "writes"}, {Name: "zeroes"},
		{Name: "refused"}, {Name: "written", Unit: "MiB"}, {Name: "x straight", Digits: 2}, {Name: "x ideal", Digits: 2}, {Name: "holes by"},
	}}
	for _, c := range cells {
		t.Add(c.Server, c.FastZeroMode, c.Tool, c.Seconds, c.Writes, c.Zeroes, c.Refused, c.Wrote>>20, c.Straight, c.Ideal, c.ZeroBy)
	}
	return t
}

// bars groups the times by server and has one colour for each strategy.
func bars(title string, cells []cell) *report.Bars {
	b := &report.Bars{Title: "Time of a copy; " + strings.ToLower(title[:1]) + title[1:], Y: report.Axis{Label: "s", Zero: true}, Digits: 2}
	group := func(c cell) string { return c.Server + " " + c.FastZeroMode }
	for _, c := range cells {
		if g := group(c); !slices.Contains(b.Groups, g) {
			b.Groups = append(b.Groups, g)
		}
	}
	for _, tool := range append(strategyNames(), toolQemu) {
		if slices.ContainsFunc(cells, func(c cell) bool { return c.Tool == tool }) {
			b.Series = append(b.Series, report.BarSeries{Name: tool, Values: slices.Repeat([]float64{math.NaN()}, len(b.Groups))})
		}
	}
	for _, c := range cells {
		i := slices.IndexFunc(b.Series, func(s report.BarSeries) bool { return s.Name == c.Tool })
		b.Series[i].Values[slices.Index(b.Groups, group(c))] = c.Seconds
	}
	return b
}

// story puts the cells that matter side by side, with their numbers.
func story(cells []cell) []string {
	find := func(server, fast, tool string) (string, bool) {
		for _, c := range cells {
			if c.Server == server && c.FastZeroMode == fast && c.Tool == tool && !c.BlockStatus {
				text := fmt.Sprintf("%s, %d writes, %d MiB written, %.2f of the straight copy's time", zeroes(c.Zeroes), c.Writes, c.Wrote>>20, c.Straight)
				if c.Refused > 0 {
					text = fmt.Sprintf("%d refused, %s", c.Refused, text)
				}
				return text, true
			}
		}
		return "", false
	}
	var lines []string
	for _, l := range []struct{ what, fast, tool string }{
		{"a zero per hole", "none", "zero-each"},
		{"pre-zero, whatever it costs", "ignore", "prezero"},
		{"no fallback, fast zeroing not offered", "none", "nofallback"},
		{"no fallback, fast zeroing offered", "default", "nofallback"},
		{"no fallback, offered and ignored", "ignore", "nofallback"},
		{"auto, fast zeroing not offered", "none", "auto"},
		{"auto, fast zeroing offered", "default", "auto"},
		{"auto, offered and ignored", "ignore", "auto"},
	} {
		a, okA := find("A", l.fast, l.tool)
		b, okB := find("B", l.fast, l.tool)
		if okA && okB {
			lines = append(lines, fmt.Sprintf("%s: on A %s; on B %s.", l.what, a, b))
		}
	}
	return lines
}

func zeroes(n int64) string {
	if n == 1 {
		return "1 zero"
	}
	return fmt.Sprintf("%d zeroes", n)
}

var legend = []string{
	"Server A zeroes in constant time (zeromode=plugin), server B turns a zero into writes (zeromode=emulate), server - offers no zeroing.",
	"fastzeromode: none, fast zeroing is not offered; slow, offered and always refused; ignore, offered and done by any means (on B that is a lie); default, refused where it would be slow.",
	"Strategies, oldest first: write (straight copy), zero-each (a zero per hole), status-first (ask the target about each hole), prezero (zero everything first), nofallback (the same if the target promises that it is fast), auto (what `vmdisk copy` does unless told otherwise).",
	"writes, zeroes and refused are requests that the server counted; written is what it wrote to its storage, zeroes that became writes included.",
	"auto zeroes the first hole fast and alone, and times it against the data next to it. Only if zeroing proves much cheaper does one request zero the rest: two zeroes instead of one. A single request for everything would have to trust the server, because until the first zero an honest server and one that lies look alike.",
	"x straight compares with the median time of the straight copies of the table.",
	"x ideal compares with the time of the least work: data written once; holes zeroed by one request where the server can and lets a client know, else by one request each; nothing for holes where block status shows an empty target.",
}

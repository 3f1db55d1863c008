package report

import (
	"image/color"
	"slices"

	"gonum.org/v1/plot/plotter"
)

// marks draws the stretches of the x axis that are to be pointed out: a shade over
// the whole height, and for those of a series a bar in its colour above the lines,
// a row for each series.
func (p *figure) marks(l *Lines) error {
	if len(l.Marks) == 0 {
		return nil
	}
	top, step := p.Y.Max, (p.Y.Max-p.Y.Min)*0.045
	row, tints := 0, l.colours.of(l.parts())
	for i, s := range l.Series {
		if l.Y.Log || !slices.ContainsFunc(l.Marks, func(m Mark) bool { return m.Series == s.Name }) {
			continue
		}
		lo := top + step*(float64(row)+0.3)
		row++
		for _, m := range l.Marks {
			if m.Series != s.Name {
				continue
			}
			if _, err := p.rectangle(m, lo, lo+step*0.7, tints[i]); err != nil {
				return err
			}
		}
	}
	p.Y.Max = top + step*float64(row)
	explained := map[string]bool{}
	for _, m := range l.Marks {
		area, err := p.rectangle(m, p.Y.Min, p.Y.Max, color.NRGBA{R: 200, G: 30, B: 30, A: 36})
		if err != nil {
			return err
		}
		if !explained[m.Label] {
			explained[m.Label] = true
			p.explain(m.Label, area)
		}
	}
	return nil
}

// rectangle fills a mark's stretch between two heights; a mark without length is
// still seen.
func (p *figure) rectangle(m Mark, lo, hi float64, fill color.Color) (*plotter.Polygon, error) {
	end := max(m.End, m.Start+(p.X.Max-p.X.Min)/300)
	area, err := plotter.NewPolygon(plotter.XYs{{X: m.Start, Y: lo}, {X: end, Y: lo}, {X: end, Y: hi}, {X: m.Start, Y: hi}})
	if err != nil {
		return nil, err
	}
	area.Color = fill
	area.Width = 0
	p.Add(area)
	return area, nil
}

package report

import (
	"image/color"
	"strconv"
	"unicode/utf8"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// grouped is a chart with a named group for each place of one axis. It lies flat,
// groups from top to bottom, where the names don't fit side by side.
type grouped interface {
	names() []string
	// rows is the number of bars or boxes from top to bottom, gaps included.
	rows() float64
	flat(width float64) bool
}

// rowHeight is that of one bar or box, in points; below it labels touch.
const rowHeight = 15

// crowded reports whether names of so many characters don't fit side by side.
func crowded(names []string, width float64) bool {
	longest := 0
	for _, n := range names {
		longest = max(longest, utf8.RuneCountInString(n))
	}
	const letter = 6.2 // points, on average
	return float64(longest+2)*letter*float64(len(names)) > 0.85*width
}

func (b *Bars) names() []string         { return b.Groups }
func (b *Bars) rows() float64           { return float64(len(b.Groups)) * (float64(len(b.Series)) + 0.6) }
func (b *Bars) flat(width float64) bool { return crowded(b.Groups, width) }

func (b *Boxes) names() []string {
	names := make([]string, len(b.Groups))
	for i, g := range b.Groups {
		names[i] = g.Name
	}
	return names
}
func (b *Boxes) rows() float64           { return float64(len(b.Groups)) * 1.6 }
func (b *Boxes) flat(width float64) bool { return crowded(b.names(), width) }

// groups prepares the axes for a grouped chart: place is where group i goes, room
// the length that each group has.
func (p *figure) groups(g grouped, y Axis) (flat bool, place func(i int) float64, room vg.Length) {
	names := g.names()
	n := len(names)
	flat = g.flat(p.width.Points())
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{220}, color.Gray{220}
	if flat {
		axis(&p.X, y)
		grid.Horizontal.Color = nil
		place = func(i int) float64 { return float64(n - 1 - i) }
		room = (p.height - vg.Points(90)) / vg.Length(n)
	} else {
		axis(&p.Y, y)
		grid.Vertical.Color = nil
		place = func(i int) float64 { return float64(i) }
		room = 0.85 * p.width / vg.Length(max(n, 1))
	}
	p.Add(grid)
	p.nominal(names, flat, place)
	return flat, place, room
}

// nominal labels the groups along their axis.
func (p *figure) nominal(names []string, flat bool, place func(int) float64) {
	if len(names) == 0 {
		return
	}
	at := make([]string, len(names))
	for i, n := range names {
		at[int(place(i))] = n
	}
	a := &p.X
	if flat {
		p.NominalY(at...)
		a = &p.Y
	} else {
		p.NominalX(at...)
	}
	a.Min, a.Max = -0.6, float64(len(names))-0.4
}

func (b *Bars) draw(p *figure) error {
	y := b.Y
	y.Zero = true
	flat, place, room := p.groups(b, y)
	n := max(len(b.Series), 1)
	width := room * 0.85 / vg.Length(n)
	for i, s := range b.Series {
		if len(b.Groups) == 0 {
			continue
		}
		values := b.placed(s, place)
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.LineStyle.Width = 0
		bars.Color = colour(i)
		bars.Horizontal = flat
		bars.Offset = (vg.Length(i) - vg.Length(n-1)/2) * width
		if flat {
			bars.Offset = -bars.Offset
		}
		p.Add(bars)
		if err := p.barLabels(values, bars, b.Digits, width); err != nil {
			return err
		}
		p.explain(s.Name, bars)
	}
	p.settleGroups(flat, y)
	return nil
}

// placed are the values of a series in the order of their places.
func (b *Bars) placed(s BarSeries, place func(int) float64) plotter.Values {
	values := make(plotter.Values, len(b.Groups))
	for j := range b.Groups {
		if j < len(s.Values) && drawable(s.Values[j], b.Y) {
			values[int(place(j))] = s.Values[j]
		}
	}
	return values
}

// barLabels writes the values at the ends of bars that have room for them.
func (p *figure) barLabels(values plotter.Values, bars *plotter.BarChart, digits int, width vg.Length) error {
	size := p.X.Tick.Label.Font.Size * 0.85
	if width < size || !bars.Horizontal && width < 4*size {
		return nil
	}
	data := plotter.XYLabels{}
	for i, v := range values {
		at := plotter.XY{X: float64(i), Y: v}
		if bars.Horizontal {
			at.X, at.Y = at.Y, at.X
		}
		if v != 0 {
			data.XYs, data.Labels = append(data.XYs, at), append(data.Labels, strconv.FormatFloat(v, 'f', digits, 64))
		}
	}
	labels, err := plotter.NewLabels(data)
	if err != nil {
		return err
	}
	labels.Offset = vg.Point{X: bars.Offset, Y: vg.Points(2)}
	if bars.Horizontal {
		labels.Offset = vg.Point{X: vg.Points(3), Y: bars.Offset}
	}
	for i := range labels.TextStyle {
		style := &labels.TextStyle[i]
		style.Font = p.X.Tick.Label.Font
		style.Font.Size = size
		style.XAlign, style.YAlign = text.XCenter, text.YBottom
		if bars.Horizontal {
			style.XAlign, style.YAlign = text.XLeft, text.YCenter
		}
	}
	p.Add(labels)
	return nil
}

func (b *Boxes) draw(p *figure) error {
	flat, place, room := p.groups(b, b.Y)
	for i, g := range b.Groups {
		var values plotter.Values
		for _, v := range g.Values {
			if drawable(v, b.Y) {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		box, err := plotter.NewBoxPlot(min(room*0.6, vg.Points(40)), place(i), values)
		if err != nil {
			return err
		}
		box.FillColor = pale(colour(i))
		box.Horizontal = flat
		p.Add(box)
		if err := p.dots(values, place(i), flat); err != nil {
			return err
		}
	}
	p.settleGroups(flat, b.Y)
	return nil
}

// manyValues is how many values a box may have for each to be shown: the box of
// three repeats says less than the three.
const manyValues = 20

func (p *figure) dots(values plotter.Values, at float64, flat bool) error {
	if len(values) > manyValues {
		return nil
	}
	xys := make(plotter.XYs, len(values))
	for i, v := range values {
		xys[i] = plotter.XY{X: at, Y: v}
		if flat {
			xys[i] = plotter.XY{X: v, Y: at}
		}
	}
	dots, err := plotter.NewScatter(xys)
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: color.Gray{40}, Radius: vg.Points(2), Shape: draw.CircleGlyph{}}
	p.Add(dots)
	return nil
}

func pale(c color.RGBA) color.RGBA {
	half := func(v uint8) uint8 { return uint8((int(v) + 255) / 2) }
	return color.RGBA{half(c.R), half(c.G), half(c.B), 255}
}

// settleGroups is settle for grouped charts, with room for the labels at the ends.
func (p *figure) settleGroups(flat bool, y Axis) {
	a := &p.Y
	if flat {
		a = &p.X
		p.settle(y, Axis{})
	} else {
		p.settle(Axis{}, y)
	}
	if y.Log {
		return
	}
	room := (a.Max - a.Min) * 0.08
	a.Max += room
	if !y.Zero {
		a.Min -= room
	}
}

package report

import (
	"image/color"
	"math"
	"slices"
	"strings"
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

// letter is the width of a character in points, on average.
const letter = 6.2

// shorten cuts a name in the middle, because the names of one chart often differ at their
// ends alone.
func shorten(name string, limit int) string {
	r := []rune(name)
	if len(r) <= limit || limit < 5 {
		return name
	}
	head := (limit - 1) / 3
	return string(r[:head]) + "…" + string(r[len(r)-(limit-1-head):])
}

// crowded reports whether names of so many characters don't fit side by side.
func crowded(names []string, width float64) bool {
	longest := 0
	for _, n := range names {
		longest = max(longest, utf8.RuneCountInString(n))
	}
	return float64(longest+2)*letter*float64(len(names)) > 0.85*width
}

func (b *Bars) names() []string         { return slices.Clone(b.Groups) }
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
	for i := range names {
		names[i] = shorten(names[i], int(0.4*p.width.Points()/letter))
	}
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
	y, lengths := b.Y, b.lengths()
	y.Zero = true
	if lengths.base > 0 {
		y.Label = strings.TrimSpace(y.Label + " (logarithmic)")
	}
	flat, place, room := p.groups(b, y)
	if along := &p.Y; lengths.base > 0 {
		if flat {
			along = &p.X
		}
		along.Tick.Marker = decadeTicks{lengths.base}
	}
	if len(b.Groups) > 0 {
		n := len(b.Series)
		width := room * 0.85 / vg.Length(max(n, 1))
		tints := b.colours.of(b.parts())
		for i, s := range b.Series {
			at := (vg.Length(i) - vg.Length(n-1)/2) * width
			if flat {
				at = -at
			}
			shape := barShape{flat: flat, width: width, offset: at, place: place, lengths: lengths}
			if !b.bySeries() {
				if err := p.eachBar(b, s, shape); err != nil {
					return err
				}
				continue
			}
			bars, err := p.bars(b.placed(s, place), b.Digits, shape, tints[i])
			if err != nil {
				return err
			}
			p.explain(s.Name, bars)
		}
	}
	p.settleGroups(flat, y)
	return nil
}

// muchLarger is the ratio of values from which on the bars of the small ones could not be
// told apart on a linear axis.
const muchLarger = 50

// lengths turns values into lengths of bars: the values themselves, or, with a base above 0,
// the number of times that the value is ten times the base.
type lengths struct{ base float64 }

// lengths decides by the smallest and the largest value above 0.
func (b *Bars) lengths() lengths {
	lo, hi := math.Inf(1), 0.0
	for _, s := range b.Series {
		for _, v := range s.Values {
			if v > 0 && !math.IsInf(v, 0) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if !(hi > muchLarger*lo) {
		return lengths{}
	}
	return lengths{math.Pow(10, math.Floor(math.Log10(lo))-1)}
}

func (l lengths) of(v float64) float64 {
	switch {
	case l.base == 0:
		return v
	case v <= l.base:
		return 0
	}
	return math.Log10(v / l.base)
}

// barShape is how the bars of one series stand.
type barShape struct {
	flat          bool
	width, offset vg.Length
	place         func(int) float64
	lengths       lengths
}

// bars draws one series with one colour.
func (p *figure) bars(values plotter.Values, digits int, s barShape, fill color.Color) (*plotter.BarChart, error) {
	drawn := make(plotter.Values, len(values))
	for i, v := range values {
		drawn[i] = s.lengths.of(v)
	}
	bars, err := plotter.NewBarChart(drawn, s.width)
	if err != nil {
		return nil, err
	}
	bars.LineStyle.Width = 0
	bars.Color = fill
	bars.Horizontal = s.flat
	bars.Offset = s.offset
	p.Add(bars)
	return bars, p.barLabels(values, bars, digits, s.width)
}

// eachBar draws the only series of a chart, each bar in its group's colour.
func (p *figure) eachBar(b *Bars, s BarSeries, shape barShape) error {
	for i, tint := range groupColours(b.colours, b.Groups) {
		one := BarSeries{Values: make([]float64, len(b.Groups))}
		if i < len(s.Values) {
			one.Values[i] = s.Values[i]
		}
		if _, err := p.bars(b.placed(one, shape.place), b.Digits, shape, tint); err != nil {
			return err
		}
	}
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
		at := plotter.XY{X: float64(i), Y: bars.Values[i]}
		if bars.Horizontal {
			at.X, at.Y = at.Y, at.X
		}
		if v != 0 {
			data.XYs, data.Labels = append(data.XYs, at), append(data.Labels, withSeparators(v, digits))
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
	tints := groupColours(b.colours, b.names())
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
		box.FillColor = pale(tints[i])
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

// pale lets half of the page through, be it light or dark.
func pale(c color.RGBA) color.NRGBA { return color.NRGBA{c.R, c.G, c.B, 128} }

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

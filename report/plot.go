package report

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of a drawing in points (1/72 inch). The zero value is 720 x 400.
type Size struct{ Width, Height float64 }

func (s Size) orDefault() (w, h vg.Length) {
	if s.Width <= 0 || s.Height <= 0 {
		s = Size{720, 400}
	}
	return vg.Points(s.Width), vg.Points(s.Height)
}

// palette is Okabe and Ito's, which colour-blind readers tell apart.
var palette = []color.RGBA{
	{0, 114, 178, 255}, {230, 159, 0, 255}, {0, 158, 115, 255}, {213, 94, 0, 255},
	{204, 121, 167, 255}, {86, 180, 233, 255}, {240, 228, 66, 255}, {90, 90, 90, 255},
}

func colour(i int) color.RGBA { return palette[i%len(palette)] }

// figure is one plot under construction.
type figure struct {
	*plot.Plot
	width vg.Length
}

// SVG draws a chart.
func SVG(w io.Writer, c Chart, size Size) error {
	width, height := size.orDefault()
	p, err := newFigure(c, width)
	if err != nil {
		return err
	}
	canvas := vgsvg.New(width, height)
	p.Draw(inset(draw.New(canvas)))
	_, err = canvas.WriteTo(w)
	return err
}

// PNG draws a chart at 144 pixels an inch, on white.
func PNG(w io.Writer, c Chart, size Size) error {
	width, height := size.orDefault()
	p, err := newFigure(c, width)
	if err != nil {
		return err
	}
	canvas := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(144))}
	p.Draw(inset(draw.New(canvas)))
	_, err = canvas.WriteTo(w)
	return err
}

// inset keeps labels off the edge of the drawing.
func inset(c draw.Canvas) draw.Canvas {
	return draw.Crop(c, vg.Points(8), -vg.Points(14), vg.Points(6), -vg.Points(8))
}

func newFigure(c Chart, width vg.Length) (p *figure, err error) {
	p = &figure{plot.New(), width}
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.Legend.TextStyle.Font,
		&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
	} {
		f.Typeface, f.Variant = "Liberation", "Sans"
	}
	p.Title.Text = c.Caption()
	p.Title.Padding = vg.Points(8)
	p.Legend.Top = true
	p.Legend.Padding = vg.Points(2)
	p.BackgroundColor = color.White
	// The plotting library panics on values that it cannot place.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("draw %q: %v", c.Caption(), r)
		}
	}()
	if err := c.draw(p); err != nil {
		return nil, fmt.Errorf("draw %q: %w", c.Caption(), err)
	}
	return p, nil
}

func (p *figure) axes(x, y Axis) {
	axis(&p.X, x)
	axis(&p.Y, y)
	grid := plotter.NewGrid()
	grid.Horizontal.Color = color.Gray{220}
	grid.Vertical.Color = nil
	p.Add(grid)
}

// nominal labels the groups along the x axis.
func (p *figure) nominal(names []string) {
	if len(names) > 0 {
		p.NominalX(names...)
		p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
	}
}

func axis(a *plot.Axis, want Axis) {
	a.Label.Text = want.Label
	if want.Log {
		a.Scale, a.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
}

// settle fixes what the data may have left impossible to draw: an empty plot, a
// single value, a logarithmic axis that touches 0.
func (p *figure) settle(x, y Axis) {
	for _, a := range []struct {
		axis *plot.Axis
		want Axis
	}{{&p.X, x}, {&p.Y, y}} {
		if a.want.Zero && !a.want.Log {
			a.axis.Min = min(a.axis.Min, 0)
		}
		if math.IsInf(a.axis.Min, 0) || math.IsInf(a.axis.Max, 0) {
			a.axis.Min, a.axis.Max = 0, 1
		}
		if a.want.Log && a.axis.Min <= 0 {
			a.axis.Min, a.axis.Max = 1, max(a.axis.Max, 10)
		}
		if a.axis.Min == a.axis.Max {
			a.axis.Max++
		}
	}
}

func (b *Bars) draw(p *figure) error {
	y := b.Y
	y.Zero = true
	p.axes(Axis{}, y)
	n := max(len(b.Series), 1)
	width := vg.Length(0.7*float64(p.width)) / vg.Length(max(len(b.Groups), 1)*n+len(b.Groups))
	top := 0.0
	for i, s := range b.Series {
		values := make(plotter.Values, len(b.Groups))
		for j := range values {
			if j < len(s.Values) && drawable(s.Values[j], y) {
				values[j] = s.Values[j]
				top = max(top, values[j])
			}
		}
		if len(values) == 0 {
			continue
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.LineStyle.Width = 0
		bars.Color = colour(i)
		bars.Offset = (vg.Length(i) - vg.Length(n-1)/2) * width
		p.Add(bars)
		p.Legend.Add(s.Name, bars)
	}
	p.nominal(b.Groups)
	p.settle(Axis{}, y)
	// Room for the legend above the bars.
	p.Y.Max = max(top, p.Y.Max) * (1.05 + 0.06*float64(n))
	return nil
}

func (l *Lines) draw(p *figure) error {
	p.axes(l.X, l.Y)
	for i, s := range l.Series {
		line, err := plotter.NewLine(points(s.Points, l.X, l.Y))
		if err != nil {
			if len(s.Points) == 0 {
				continue
			}
			return err
		}
		line.Width = vg.Points(1.5)
		line.Color = colour(i)
		p.Add(line)
		p.Legend.Add(s.Name, line)
	}
	p.settle(l.X, l.Y)
	for _, m := range l.Marks {
		if err := p.mark(m); err != nil {
			return err
		}
	}
	return nil
}

// mark shades a stretch of the x axis over the whole height.
func (p *figure) mark(m Mark) error {
	end := max(m.End, m.Start+(p.X.Max-p.X.Min)/300)
	area, err := plotter.NewPolygon(plotter.XYs{{X: m.Start, Y: p.Y.Min}, {X: end, Y: p.Y.Min}, {X: end, Y: p.Y.Max}, {X: m.Start, Y: p.Y.Max}})
	if err != nil {
		return err
	}
	area.Color = color.NRGBA{R: 200, G: 30, B: 30, A: 60}
	area.Width = 0
	p.Add(area)
	return nil
}

func (h *Histogram) draw(p *figure) error {
	x, y := h.X, Axis{Label: "count", Zero: true}
	p.axes(x, y)
	for _, b := range h.Bins {
		lo := b.Lo
		if x.Log && lo <= 0 {
			lo = b.Hi / 2
		}
		if b.Count == 0 || !drawable(lo, x) || !drawable(b.Hi, x) {
			continue
		}
		n := float64(b.Count)
		box, err := plotter.NewPolygon(plotter.XYs{{X: lo, Y: 0}, {X: lo, Y: n}, {X: b.Hi, Y: n}, {X: b.Hi, Y: 0}})
		if err != nil {
			return err
		}
		box.Color = colour(0)
		box.LineStyle.Color = color.White
		box.Width = vg.Points(0.25)
		p.Add(box)
	}
	p.settle(x, y)
	return nil
}

func (b *Boxes) draw(p *figure) error {
	p.axes(Axis{}, b.Y)
	names := make([]string, len(b.Groups))
	for i, g := range b.Groups {
		names[i] = g.Name
		var values plotter.Values
		for _, v := range g.Values {
			if drawable(v, b.Y) {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			continue
		}
		box, err := plotter.NewBoxPlot(vg.Length(0.4*float64(p.width))/vg.Length(len(b.Groups)+1), float64(i), values)
		if err != nil {
			return err
		}
		box.FillColor = colour(i)
		p.Add(box)
	}
	p.nominal(names)
	p.settle(Axis{}, b.Y)
	return nil
}

func points(in []Point, x, y Axis) plotter.XYs {
	out := make(plotter.XYs, 0, len(in))
	for _, p := range in {
		if drawable(p.X, x) && drawable(p.Y, y) {
			out = append(out, plotter.XY{X: p.X, Y: p.Y})
		}
	}
	return out
}

// drawable reports whether v has a place on the axis.
func drawable(v float64, a Axis) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!a.Log || v > 0)
}

// inlineSVG returns the chart as an element for an HTML page: no XML
// declaration, and as wide as the page.
func inlineSVG(c Chart) ([]byte, error) {
	var b bytes.Buffer
	if err := SVG(&b, c, Size{}); err != nil {
		return nil, err
	}
	svg := b.Bytes()
	if i := bytes.Index(svg, []byte("<svg")); i >= 0 {
		svg = svg[i:]
	}
	return svg, nil
}

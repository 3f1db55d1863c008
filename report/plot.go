package report

import (
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
)

// Size of a drawing in points (1/72 inch). Without a width it is 720 wide; without a
// height it is as high as suits the width, higher where a chart has many groups.
type Size struct{ Width, Height float64 }

func (s Size) of(c Chart) (w, h vg.Length) {
	if s.Width <= 0 {
		s = Size{Width: 720}
	}
	if s.Height <= 0 {
		s.Height = min(400, 0.9*s.Width)
		if g, ok := c.(grouped); ok && g.flat(s.Width) {
			s.Height = max(s.Height, g.rows()*rowHeight+90)
		}
	}
	return vg.Points(s.Width), vg.Points(s.Height)
}

// figure is one plot under construction.
type figure struct {
	*plot.Plot
	width, height vg.Length
	// legend is drawn beside the plot: inside it would hide what it explains.
	legend  plot.Legend
	entries int
}

// PNG draws a chart at 144 pixels an inch, on white.
func PNG(w io.Writer, c Chart, size Size) error {
	width, height := size.of(c)
	p, err := newFigure(c, width, height)
	if err != nil {
		return err
	}
	canvas := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(144))}
	p.drawOn(inset(draw.New(canvas)))
	_, err = canvas.WriteTo(w)
	return err
}

// inset keeps labels off the edge of the drawing.
func inset(c draw.Canvas) draw.Canvas {
	return draw.Crop(c, vg.Points(8), -vg.Points(14), vg.Points(6), -vg.Points(8))
}

// drawOn draws the plot with its legend at the right, or below it where names are
// too long for that.
func (p *figure) drawOn(c draw.Canvas) {
	if p.entries == 0 {
		p.Draw(c)
		return
	}
	size := p.legend.Rectangle(c).Size()
	if size.X <= 0.3*c.Size().X {
		p.Draw(draw.Crop(c, 0, -size.X-vg.Points(10), 0, 0))
		p.legend.Top = true
		p.legend.Draw(draw.Crop(c, c.Size().X-size.X, 0, 0, -vg.Points(30)))
		return
	}
	p.Draw(draw.Crop(c, 0, 0, min(size.Y, c.Size().Y/2)+vg.Points(6), 0))
	p.legend.Draw(c)
}

func newFigure(c Chart, width, height vg.Length) (p *figure, err error) {
	p = &figure{Plot: plot.New(), width: width, height: height, legend: plot.NewLegend()}
	for _, f := range []*font.Font{
		&p.Title.TextStyle.Font, &p.legend.TextStyle.Font,
		&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font,
	} {
		f.Typeface, f.Variant = "Liberation", "Sans"
	}
	p.Title.Text = c.Caption()
	p.Title.Padding = vg.Points(8)
	p.legend.TextStyle.Font.Size = vg.Points(10)
	p.legend.Padding = vg.Points(3)
	p.legend.Left = true
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

func axis(a *plot.Axis, want Axis) {
	a.Label.Text = want.Label
	label := numberLabel
	if want.Scale == Microseconds {
		label = durationLabel
	}
	switch {
	case want.Scale == Percentiles:
		a.Scale, a.Tick.Marker = percentileScale{}, percentileTicks{}
	case want.Log:
		a.Scale, a.Tick.Marker = plot.LogScale{}, logTicks{label}
	default:
		a.Tick.Marker = linearTicks{label}
	}
}

func (p *figure) explain(name string, mark plot.Thumbnailer) {
	if name != "" {
		p.legend.Add(name, mark)
		p.entries++
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
		switch {
		case a.axis.Min != a.axis.Max:
		case a.want.Scale == Percentiles:
			a.axis.Max = (a.axis.Max + 100) / 2
		default:
			a.axis.Max++
		}
	}
}

func (l *Lines) draw(p *figure) error {
	p.axes(l.X, l.Y)
	tints := l.colours.of(l.parts())
	for i, s := range l.Series {
		line, err := plotter.NewLine(points(s.Points, l.X, l.Y))
		if err != nil {
			if len(s.Points) == 0 {
				continue
			}
			return err
		}
		line.Width = vg.Points(1.5)
		line.Color = tints[i]
		p.Add(line)
		p.explain(s.Name, line)
	}
	p.settle(l.X, l.Y)
	return p.marks(l)
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
	return !math.IsNaN(v) && !math.IsInf(v, 0) && (!a.Log || v > 0) && (a.Scale != Percentiles || v >= 0 && v < 100)
}

package report

import (
	"bytes"
	"fmt"
	"io"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// SVG draws a chart.
func SVG(w io.Writer, c Chart, size Size) error {
	width, height := size.of(c)
	p, err := newFigure(c, width, height)
	if err != nil {
		return err
	}
	canvas := &measured{Canvas: vgsvg.New(width, height)}
	p.drawOn(inset(draw.New(canvas)))
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	_, err = w.Write(canvas.fit(b.Bytes()))
	return err
}

// measured is a canvas that remembers how wide each text was meant to be. Who looks at
// the drawing seldom has the font that it was laid out with, and in a wider one labels
// ran into the bars beside them.
type measured struct {
	*vgsvg.Canvas
	widths []vg.Length
}

// FillString implements vg.Canvas.
func (m *measured) FillString(f font.Face, at vg.Point, s string) {
	m.widths = append(m.widths, f.Width(s))
	m.Canvas.FillString(f, at, s)
}

// fit gives each text of a drawing its width, and the font substitutes of like shape.
func (m *measured) fit(svg []byte) []byte {
	svg = bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	parts := bytes.Split(svg, []byte("<text ")) // in a text < is escaped
	out := bytes.NewBuffer(parts[0])
	for i, part := range parts[1:] {
		out.WriteString("<text ")
		if i < len(m.widths) && m.widths[i] > 0 {
			fmt.Fprintf(out, `textLength="%.4g" lengthAdjust="spacingAndGlyphs" `, m.widths[i].Points())
		}
		out.Write(part)
	}
	return out.Bytes()
}

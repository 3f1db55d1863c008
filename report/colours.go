package report

import "image/color"

// palette is Okabe and Ito's, which colour-blind readers tell apart.
var palette = []color.RGBA{
	{0, 114, 178, 255}, {230, 159, 0, 255}, {0, 158, 115, 255}, {213, 94, 0, 255},
	{204, 121, 167, 255}, {86, 180, 233, 255}, {240, 228, 66, 255}, {90, 90, 90, 255},
}

func colour(i int) color.RGBA { return palette[i%len(palette)] }

// colours are the places of names in the palette, the same in all charts of a document.
type colours map[string]int

// named is a chart whose parts have names.
type named interface {
	parts() []string
	paint(colours)
}

// MatchColours gives equal names equal colours in all charts of the document, in the order
// in which they first stand in it. It changes the charts; drawing them does not.
func (d *Document) MatchColours() {
	var all []named
	c := colours{}
	for _, s := range d.Sections {
		for _, it := range s.Items {
			n, ok := it.(named)
			if !ok {
				continue
			}
			all = append(all, n)
			for _, name := range n.parts() {
				if _, known := c[name]; !known {
					c[name] = len(c)
				}
			}
		}
	}
	for _, n := range all {
		n.paint(c)
	}
}

// of returns the colours of the parts of one chart. Where the palette is too small to keep
// the parts of this chart apart by the document's places, their own places count.
func (c colours) of(parts []string) []color.RGBA {
	out := make([]color.RGBA, len(parts))
	seen := map[color.RGBA]bool{}
	for i, name := range parts {
		n, known := c[name]
		if !known {
			n = i
		}
		out[i] = colour(n)
		if seen[out[i]] {
			for j := range parts {
				out[j] = colour(j)
			}
			return out
		}
		seen[out[i]] = true
	}
	return out
}

func (l *Lines) parts() []string {
	out := make([]string, len(l.Series))
	for i, s := range l.Series {
		out[i] = s.Name
	}
	return out
}

func (l *Lines) paint(c colours) { l.colours = c }

// bySeries reports whether colours tell series apart; else they tell groups apart.
func (b *Bars) bySeries() bool { return len(b.Series) != 1 || b.Series[0].Name != "" }

func (b *Bars) parts() []string {
	if !b.bySeries() {
		return b.Groups
	}
	out := make([]string, len(b.Series))
	for i, s := range b.Series {
		out[i] = s.Name
	}
	return out
}

func (b *Bars) paint(c colours) { b.colours = c }

func (b *Boxes) parts() []string { return b.names() }

func (b *Boxes) paint(c colours) { b.colours = c }

// groupColours are the colours of groups that stand side by side. More of them than the
// palette has colours all have the first: repeated colours would say that groups belong together.
func groupColours(c colours, groups []string) []color.RGBA {
	if len(groups) > len(palette) {
		out := make([]color.RGBA, len(groups))
		for i := range out {
			out[i] = palette[0]
		}
		return out
	}
	return c.of(groups)
}

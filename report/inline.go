package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// Widths in points of the drawings in a page. A wide one on a narrow screen would have letters
// of half the size.
const (
	broadWidth  = 720
	narrowWidth = 360
)

// inlineSVG returns the chart as an element of class `class` for an HTML page: no XML declaration,
// and with the colours of the page's style sheet, so that it follows a dark page.
func inlineSVG(c Chart, class string, width float64) ([]byte, error) {
	var b bytes.Buffer
	if err := SVG(&b, c, Size{Width: width}); err != nil {
		return nil, err
	}
	svg := b.Bytes()
	if i := bytes.Index(svg, []byte("<svg")); i >= 0 {
		svg = svg[i:]
	}
	svg = bytes.Replace(svg, []byte("<svg"), fmt.Appendf(nil, `<svg class="%s"`, class), 1)
	return themed(svg), nil
}

// pageColours are the variables of the page's style sheet for the colours of drawings.
var pageColours = func() map[string]string {
	m := map[string]string{"#000000": "var(--ink)", "#282828": "var(--ink)", "#DCDCDC": "var(--line)", "#FFFFFF": "var(--paper)"}
	for i, c := range palette {
		hex := fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B)
		m[hex] = fmt.Sprintf("var(--c%d)", i)
	}
	return m
}()

var (
	styleAttribute = regexp.MustCompile(`style="[^"]*"`)
	hexColour      = regexp.MustCompile(`#[0-9A-Fa-f]{6}`)
)

// themed replaces colours in style attributes alone: a label may hold anything.
func themed(svg []byte) []byte {
	return styleAttribute.ReplaceAllFunc(svg, func(style []byte) []byte {
		return hexColour.ReplaceAllFunc(style, func(hex []byte) []byte {
			if v, ok := pageColours[strings.ToUpper(string(hex))]; ok {
				return []byte(v)
			}
			return hex
		})
	})
}

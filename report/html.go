package report

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

type pageSection struct {
	ID        string
	Title     string
	Sub, Fold bool
	Text      []string
	Items     []pageItem
}

type pageItem struct {
	Title string
	// SVG is the drawing; Narrow the one for small screens, which drawings that are folded away
	// lack: they would double the size of a page with many cells.
	SVG, Narrow template.HTML
	Listing     string
	Table       *pageTable
	Fold        bool
}

type pageTable struct {
	Head  []pageCell
	Rows  [][]pageCell
	Notes []string
}

type pageCell struct {
	Text   string
	Number bool
}

// HTML writes the document as one page that loads nothing: charts are inline
// SVG with their numbers in a folded table, and the whole document is there
// once more as JSON in the element with the id "data".
func HTML(w io.Writer, d *Document) error {
	data, err := json.Marshal(jsonDocument(d)) // escapes <, > and &
	if err != nil {
		return fmt.Errorf("report %q: %w", d.Title, err)
	}
	view := struct {
		Title    string
		Answer   Answer
		Facts    []Fact
		Contents []pageSection
		Sections []pageSection
		Data     template.JS
	}{Title: d.Title, Answer: d.Answer, Facts: d.Facts, Data: template.JS(data)}
	for i, s := range d.Sections {
		sec := pageSection{ID: fmt.Sprintf("s%d", i+1), Title: s.Title, Sub: s.Sub, Fold: s.Fold, Text: s.Text}
		if s.Title != "" && !s.Sub {
			view.Contents = append(view.Contents, sec)
		}
		for _, it := range s.Items {
			item, err := newPageItem(it, s.Fold)
			if err != nil {
				return err
			}
			sec.Items = append(sec.Items, item)
		}
		view.Sections = append(view.Sections, sec)
	}
	return page.Execute(w, view)
}

func newPageItem(it Item, folded bool) (pageItem, error) {
	out := pageItem{Title: it.Caption()}
	switch it := it.(type) {
	case *Listing:
		out.Listing = it.Body
		return out, nil
	case Chart:
		svg, err := inlineSVG(it, "broad", broadWidth)
		if err != nil {
			return out, err
		}
		out.SVG, out.Fold = template.HTML(svg), true
		if !folded {
			if svg, err = inlineSVG(it, "narrow", narrowWidth); err != nil {
				return out, err
			}
			out.Narrow = template.HTML(svg)
		}
	}
	out.Table = newPageTable(it.Table())
	return out, nil
}

func newPageTable(t *Table) *pageTable {
	out := &pageTable{Notes: t.Notes}
	numeric := make([]bool, len(t.Columns))
	for i, c := range t.Columns {
		numeric[i] = t.numeric(i)
		out.Head = append(out.Head, pageCell{c.heading(), numeric[i]})
	}
	for _, r := range t.Rows {
		row := make([]pageCell, len(t.Columns))
		for i := range row {
			row[i] = pageCell{t.cell(r, i), numeric[i]}
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

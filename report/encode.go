package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// CSV writes the item's table with one heading line. Numbers are written whole;
// no value is an empty field.
func CSV(w io.Writer, it Item) error {
	t := it.Table()
	c := csv.NewWriter(w)
	line := make([]string, len(t.Columns))
	for i, col := range t.Columns {
		line[i] = col.heading()
	}
	if err := c.Write(line); err != nil {
		return err
	}
	for _, r := range t.Rows {
		for i := range line {
			line[i] = ""
			if i < len(r) {
				if v := finite(r[i]); v != nil {
					line[i] = fmt.Sprint(v)
				}
			}
		}
		if err := c.Write(line); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// JSON writes the document: {"title", "answer": [...], "warnings": [...], "facts": {name: value}, "sections":
// [{"title", "text": [...], "items": [{"title", "columns": [...], "units":
// [...], "rows": [[...]], "notes": [...]}]}]}. Every item has the form of its
// table; null is no value.
func JSON(w io.Writer, d *Document) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(jsonDocument(d))
}

type (
	jsonDoc struct {
		Title    string            `json:"title"`
		Answer   []string          `json:"answer,omitempty"`
		Warnings []string          `json:"warnings,omitempty"`
		Facts    map[string]string `json:"facts"`
		Sections []jsonSection     `json:"sections"`
	}
	jsonSection struct {
		Title string      `json:"title"`
		Text  []string    `json:"text"`
		Items []jsonTable `json:"items"`
	}
	jsonTable struct {
		Title   string   `json:"title"`
		Columns []string `json:"columns"`
		Units   []string `json:"units"`
		Rows    [][]any  `json:"rows"`
		Notes   []string `json:"notes"`
	}
)

func jsonDocument(d *Document) jsonDoc {
	out := jsonDoc{Title: d.Title, Answer: d.Answer.Text, Warnings: d.Answer.Warnings, Facts: map[string]string{}, Sections: []jsonSection{}}
	for _, f := range d.Facts {
		out.Facts[f.Name] = f.Value
	}
	for _, s := range d.Sections {
		sec := jsonSection{Title: s.Title, Text: append([]string{}, s.Text...), Items: []jsonTable{}}
		for _, it := range s.Items {
			sec.Items = append(sec.Items, jsonItem(it))
		}
		out.Sections = append(out.Sections, sec)
	}
	return out
}

func jsonItem(it Item) jsonTable {
	t := it.Table()
	out := jsonTable{Title: t.Title, Columns: []string{}, Units: []string{}, Rows: [][]any{}, Notes: append([]string{}, t.Notes...)}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, c.Name)
		out.Units = append(out.Units, c.Unit)
	}
	for _, r := range t.Rows {
		row := make([]any, len(t.Columns))
		for i := range row {
			if i < len(r) {
				row[i] = finite(r[i])
			}
		}
		out.Rows = append(out.Rows, row)
	}
	return out
}

// finite returns v, or nil where v is no number that JSON knows.
func finite(v any) any {
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil
	}
	return v
}

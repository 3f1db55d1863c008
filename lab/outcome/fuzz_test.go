package outcome

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/vmdisk/vmdisk/report"
)

// FuzzRun: a run file holds what a node sent; whatever passes for a run, the report is
// made of it.
func FuzzRun(f *testing.F) {
	for _, run := range []Run{
		madeRun(made{backing: "copy", iops: []float64{100}, stall: 2, runtime: 1}, 1, 2),
		{Nodes: []Node{{Name: "a"}}},
	} {
		text, err := json.Marshal(run)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"nodes":[{"window":[{"ios":1,"iops":1e300,"bw_bytes":-1,"lat":{"n":9,"bins":[{"Value":-5,"Count":3}]}}],"result":{"jobs":[{"points":[{"at_ns":9223372036854775807,"took_ns":-1}],"stalls":[{"at_ns":-9,"took_ns":9223372036854775807}]}]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var run Run
		if json.Unmarshal(data, &run) != nil || len(data) > 1<<16 || run.check() != nil {
			return
		}
		run.Discarded = ""
		r := madeResults(2, made{backing: "copy", iops: []float64{100}, runtime: 1})
		r.Cells[0].Runs = append(r.Cells[0].Runs, run)
		if err := report.Text(io.Discard, Document(r, Options{})); err != nil {
			t.Fatal(err)
		}
		a := analyse(r, Options{})
		if _, err := json.Marshal(a.json()); err != nil {
			t.Fatal(err)
		}
		for _, c := range func() []NamedChart { _, c := a.page(); return c }() {
			if err := report.SVG(io.Discard, c.Chart, report.Size{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

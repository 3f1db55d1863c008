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
	// Short: a fuzzer that finds something in a long text spends its time on making it shorter.
	for _, text := range []string{
		`{"nodes":[{"name":"a"}]}`,
		`{"window_ns":1000000000,"nodes":[{"name":"a","window":[{"ios":9,"iops":9.5,"bw_bytes":4096,"lat":{"n":1,"bins":[100,1]}},{},{}]}]}`,
		`{"nodes":[{"window":[{"ios":1,"iops":1e300,"bw_bytes":-1,"lat":{"n":9,"bins":[-5,3]}}]}]}`,
		`{"nodes":[{"result":{"jobs":[{"name":"j","dirs":[{"ios":1},{},{}],"points":[{"at_ns":5,"took_ns":5,"ios":[1,0,0]}]}]}}]}`,
		`{"nodes":[{"result":{"jobs":[{"points":[{"at_ns":9223372036854775807,"took_ns":-1}]}]}}]}`,
		`{"nodes":[{"silent":[{"at_ns":-9,"took_ns":9}],"result":{"stalls":[{"at_ns":1,"took_ns":2000000000}]}}]}`,
		`{"host":{"busy":0.5,"points":[{"at_ns":1,"busy":0.5}]},"nodes":[{"name":"a"},{"name":"b"}]}`,
	} {
		f.Add([]byte(text))
	}
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

package bench

import "testing"

// FuzzParseResult: whatever a result file holds, reading it ends without a panic,
// and what it gives can be compared.
func FuzzParseResult(f *testing.F) {
	f.Add([]byte(`fio: note {"jobs":[{"jobname":"a","read":{"total_ios":3,"iops":1.5,"bw_bytes":7,"clat_ns":{"mean":5,"percentile":{"50.000000":4,"99.000000":9}}}}]}`))
	f.Add([]byte(`{"jobs":[{"jobname":"a"}],"vmdisk":{"samples":[{"job":"a","direction":"read","metric":"iops","values":[1,2,3,4]}]}}`))
	f.Add([]byte(`{"jobs":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cells, err := parseResult(data)
		if err != nil {
			return
		}
		for _, d := range Compare(cells, cells) {
			if d.Verdict == VerdictBetter || d.Verdict == VerdictWorse {
				t.Errorf("a run differs from itself: %+v", d)
			}
		}
		if CompareTable(Compare(cells, nil)) == nil {
			t.Error("no table")
		}
	})
}

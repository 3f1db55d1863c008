package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzFioResult: whatever fio writes, as its report and into its logs, is an error or
// a result that can be sent, and whose times are none before the start.
func FuzzFioResult(f *testing.F) {
	plan, err := (&execution{disk: &testDisk{}, run: Run{JobFile: "[j]\nrw=randrw\nsize=1m\n"}}).plan()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, bw, iops string) {
		run := &fioRun{x: &execution{}, plan: plan, dir: t.TempDir()}
		for name, log := range map[string]string{"log_bw.1.log": bw, "log_iops.1.log": iops} {
			if err := os.WriteFile(filepath.Join(run.dir, name), []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		res, err := run.parse([]byte(text))
		if err != nil {
			return
		}
		if len(res.Jobs) != 1 || len(res.Text)+len(res.JSON) > len(text) {
			t.Errorf("%d jobs, %d bytes of text and %d of JSON of %d", len(res.Jobs), len(res.Text), len(res.JSON), len(text))
		}
		res.clean()
		checkTimes(t, res)
		sent, err := json.Marshal(res)
		if err != nil {
			t.Fatalf("%+v cannot be sent: %v", res, err)
		}
		if err := json.Unmarshal(sent, new(Result)); err != nil {
			t.Fatalf("%s cannot be read: %v", sent, err)
		}
	})
}

func checkTimes(t *testing.T, res *Result) {
	t.Helper()
	if res.UserNS < 0 || res.SystemNS < 0 {
		t.Errorf("processor time %d, %d", res.UserNS, res.SystemNS)
	}
	last := int64(0)
	for _, p := range res.Jobs[0].Points {
		if p.AtNS < last || p.TookNS < 0 {
			t.Errorf("a point at %d of %d ns behind one at %d", p.AtNS, p.TookNS, last)
		}
		last = p.AtNS
	}
	for _, s := range res.Jobs[0].Stalls {
		if s.AtNS < 0 || s.TookNS < 0 {
			t.Errorf("a stall at %d of %d ns", s.AtNS, s.TookNS)
		}
	}
	for _, d := range res.Jobs[0].Dirs {
		if d.RuntimeNS < 0 || strings.HasPrefix(string(res.JSON), " ") {
			t.Errorf("ran for %d ns", d.RuntimeNS)
		}
	}
}

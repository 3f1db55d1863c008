package result

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A page begins with the outcome, has no table without rows, and says of the jobs that
// were long enough, in one line, that they were not steady.
func TestPage(t *testing.T) {
	t.Parallel()
	r := sample(t)
	for i, j := range r.Jobs {
		j.Points = nil
		for s := range 30 { // ever faster
			if i < 2 || s < 15 { // the last job is too short
				j.Points = append(j.Points, Point{At: time.Duration(s+1) * time.Second, Took: time.Second, IOs: [3]uint64{uint64(10 * (s + 1))}})
			}
		}
	}
	d := r.Document()
	if len(d.Answer.Text) == 0 || !strings.Contains(d.Answer.Text[0], "IOPS") {
		t.Errorf("the answer is %q", d.Answer.Text)
	}
	for _, it := range d.Sections[0].Items {
		if len(it.Table().Rows) == 0 {
			t.Errorf("the table %q is empty", it.Caption())
		}
	}
	var normal bytes.Buffer
	if err := r.Normal(&normal); err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"page": fmt.Sprint(d.Sections[0].Text), "text": normal.String()} {
		if n := strings.Count(text, "No steady state"); n != 1 || strings.Contains(text, "reached by a #1, b") {
			t.Errorf("the %s speaks %d times of no steady state:\n%s", where, n, text)
		}
	}
}

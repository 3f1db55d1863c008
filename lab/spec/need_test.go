package spec

import (
	"strings"
	"testing"
)

// TestWrites: what a backing must have room for.
func TestWrites(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		text string
		want int64
	}{
		{"a time-based job without a size may write everything", "job: \"[w]\\nrw=randwrite\\ntime_based\\nruntime=1\"", 1 << 30},
		{"a region", "job: \"[w]\\nrw=write\\nsize=16m\\noffset=4m\"", 20 << 20},
		{"clones side by side", "job: \"[w]\\nrw=write\\nsize=16m\\nnumjobs=3\\noffset_increment=16m\"", 48 << 20},
		{"reads write nothing", "job: \"[r]\\nrw=randread\\nsize=16m\"", 0},
		{"but a precondition does", "precondition: fill, job: \"[r]\\nrw=randread\\nsize=16m\"", 1 << 30},
	} {
		s, err := Parse("x.yaml", []byte("name: x\nworkloads: [{name: w, "+c.text+"}]\naxes: {cache: none}\n"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		cells, err := s.Cells()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := s.Writes(cells[0]); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestWritesFiles(t *testing.T) {
	t.Parallel()
	s, err := Load("falcon-backing")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set("size", "1g"); err != nil {
		t.Fatal(err)
	}
	cells, err := s.Cells()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Writes(cells[0]); got < 4<<30 || got > 5<<30 {
		t.Errorf("four files of 1 GiB: %d", got)
	}
	if text := s.Text(); !strings.HasPrefix(text, "# Four virtual") || !strings.HasSuffix(text, "# --set size=1g\n") {
		t.Errorf("text %q", text)
	}
}

func TestNodeName(t *testing.T) {
	t.Parallel()
	if NodeName(0)+NodeName(3)+NodeName(25) != "adz" {
		t.Error(NodeName(0), NodeName(3), NodeName(25))
	}
}

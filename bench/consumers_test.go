package bench_test

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/bench/result"
)

// loggedRun writes all of fio's logs of a short mixed job into dir.
func loggedRun(t *testing.T, dir string) *result.Run {
	t.Helper()
	r := run(t, "--name=j", "--filename="+filepath.Join(dir, "f"), "--size=8m", "--rw=randrw", "--bs=4k", "--ioengine=libaio", "--iodepth=8",
		"--write_bw_log=x", "--write_iops_log=x", "--write_lat_log=x", "--write_hist_log=x", "--log_hist_msec=5", "--log_avg_msec=5", "--rate_iops=4000")
	names, err := r.WriteLogs(dir)
	if err != nil || len(names) != 6 {
		t.Fatalf("%v, %v", names, err)
	}
	return r
}

// tool runs one of fio's programs in dir.
func tool(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed (scripts/peers.sh installs fio and gnuplot-nox)", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// fio_generate_plots draws our logs: each of its five charts has a curve.
func TestLogsFeedFioGeneratePlots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	loggedRun(t, dir)
	tool(t, dir, "fio_generate_plots", "ours")
	for _, kind := range []string{"lat", "iops", "slat", "clat", "bw"} {
		f, err := os.Open(filepath.Join(dir, "ours-"+kind+".svg"))
		if err != nil {
			t.Error(err)
			continue
		}
		points, err := curvePoints(f)
		if err != nil || points < 20 {
			t.Errorf("%s: the chart has a curve of %d points (%v)", kind, points, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// curvePoints is the number of points of the longest path of an SVG.
func curvePoints(r io.Reader) (most int, err error) {
	d := xml.NewDecoder(r)
	d.Entity = xml.HTMLEntity
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return most, nil
		}
		if err != nil {
			return 0, err
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "path" {
			for _, a := range e.Attr {
				if a.Name.Local == "d" {
					most = max(most, strings.Count(a.Value, ","))
				}
			}
		}
	}
}

// fio2gnuplot reads our logs and gnuplot draws what it makes of them.
func TestLogsFeedFio2gnuplot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	loggedRun(t, dir)
	for _, kind := range []string{"bw", "iops"} {
		out := tool(t, dir, "fio2gnuplot", "-p", "x_"+kind+".*.log", "-g")
		if !bytes.Contains(out, []byte("1 files Selected")) {
			t.Errorf("fio2gnuplot %s: %s", kind, out)
		}
		f, err := os.Open(filepath.Join(dir, "x_"+kind+".1-2Draw.png"))
		if err != nil {
			t.Errorf("%v\n%s", err, out)
			continue
		}
		if _, err := png.Decode(f); err != nil {
			t.Errorf("the chart of %s: %v", kind, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "x_clat.1.log"))
	if err != nil {
		t.Fatal(err)
	}
	var ms, value, direction, bs, prio int
	if n, err := fmt.Sscanf(string(data), "%d, %d, %d, %d, %d", &ms, &value, &direction, &bs, &prio); n != 5 || err != nil || value == 0 {
		t.Errorf("first line of the log: %.80q (%v)", data, err)
	}
}

// fio_jsonplus_clat2csv reads the bins of our JSON+, and the counts in it are our I/Os.
func TestBinsFeedClat2csv(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := loggedRun(t, dir)
	var b bytes.Buffer
	if err := r.JSON(&b, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "o.json"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, dir, "fio_jsonplus_clat2csv", "o.json", "o.csv")
	data, err := os.ReadFile(filepath.Join(dir, "o_job0.csv"))
	if err != nil {
		t.Fatal(err)
	}
	c := csv.NewReader(bytes.NewReader(data))
	c.TrimLeadingSpace, c.FieldsPerRecord = true, -1
	rows, err := c.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for d, name := range []string{"read", "write"} {
		col := slices.Index(rows[0], name+"_clat_ns_count")
		if col < 0 {
			t.Fatalf("no column of %ss in %q", name, rows[0])
		}
		var sum uint64
		for _, row := range rows[1:] {
			n, _ := strconv.ParseUint(row[col], 10, 64) // empty: none
			sum += n
		}
		if want := r.Jobs[0].Dirs[d].IOs; sum != want {
			t.Errorf("%d %ss in the bins, want %d", sum, name, want)
		}
	}
}

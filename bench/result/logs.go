package result

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
)

var logNames = [Logs]string{"bw", "iops", "lat", "slat", "clat"}

// WriteLogs writes the bw, iops, latency and histogram logs that the jobs asked
// for into dir, in fio's format, and returns their names.
func (r *Run) WriteLogs(dir string) ([]string, error) {
	w := logFiles{dir: dir, open: map[string]*os.File{}}
	var err error
	for _, j := range r.Jobs {
		if err = w.job(j); err != nil {
			break
		}
	}
	return w.names, errors.Join(err, w.close())
}

// logFiles keeps files open that several jobs share (per_job_logs=0).
type logFiles struct {
	dir   string
	open  map[string]*os.File
	names []string
}

func (l *logFiles) job(j *Job) error {
	s := j.Spec
	prefix := [Logs]*string{LogBW: s.BWLog, LogIOPS: s.IOPSLog, LogLat: s.LatLog, LogSlat: s.LatLog, LogClat: s.LatLog}
	for k, p := range prefix {
		if p == nil || k == LogSlat && s.SyncEngine() {
			continue
		}
		if err := l.write(s, *p, logNames[k], func(w *bufio.Writer) { j.records(w, k) }); err != nil {
			return err
		}
	}
	if s.HistLog == nil {
		return nil
	}
	return l.write(s, *s.HistLog, "clat_hist", func(w *bufio.Writer) { j.histograms(w) })
}

func (l *logFiles) write(s *jobfile.Job, prefix, kind string, fill func(*bufio.Writer)) error {
	name := logName(l.dir, s, prefix, kind)
	f := l.open[name]
	if f == nil {
		var err error
		if f, err = os.Create(name); err != nil {
			return fmt.Errorf("log: %w", err)
		}
		l.open[name] = f
		l.names = append(l.names, name)
	}
	w := bufio.NewWriter(f)
	fill(w)
	return w.Flush()
}

func logName(dir string, s *jobfile.Job, prefix, kind string) string {
	if prefix == "" {
		prefix = filepath.Base(s.Name)
	}
	name := prefix + "_" + kind
	if s.PerJobLogs {
		name += "." + strconv.Itoa(s.Number)
	}
	name += ".log"
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return name
}

// LogNames are the logs that a job will have in dir.
func LogNames(dir string, s *jobfile.Job) (names []string) {
	prefix := [Logs]*string{LogBW: s.BWLog, LogIOPS: s.IOPSLog, LogLat: s.LatLog, LogSlat: s.LatLog, LogClat: s.LatLog}
	for k, p := range prefix {
		if p != nil && (k != LogSlat || !s.SyncEngine()) {
			names = append(names, logName(dir, s, *p, logNames[k]))
		}
	}
	if s.HistLog != nil {
		names = append(names, logName(dir, s, *s.HistLog, "clat_hist"))
	}
	return names
}

// WriteBandwidth writes the bandwidth of all jobs together into dir, one log for each
// direction, in fio's format: milliseconds, KiB/s, direction, 0.
func (r *Run) WriteBandwidth(dir string) error {
	var sum [jobfile.Dirs]map[int64]float64
	for d := range sum {
		sum[d] = map[int64]float64{}
		for _, j := range r.Jobs {
			for i := range j.Points {
				sum[d][j.Points[i].At.Milliseconds()] += bandwidth(&j.Points[i], d) * 1024
			}
		}
	}
	for d, values := range sum {
		var b bytes.Buffer
		for _, at := range slices.Sorted(maps.Keys(values)) {
			if values[at] > 0 {
				fmt.Fprintf(&b, "%d, %.0f, %d, 0\n", at, values[at], d)
			}
		}
		if err := os.WriteFile(BandwidthLog(dir, d), b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	return nil
}

// BandwidthLog is the log of a direction that WriteBandwidth writes.
func BandwidthLog(dir string, d int) string {
	return filepath.Join(dir, "agg-"+jobfile.DirNames[d]+"_bw.log")
}

func (l *logFiles) close() error {
	var errs []error
	for _, f := range l.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (j *Job) records(w *bufio.Writer, kind int) {
	var epoch int64
	if j.Spec.LogUnixEpoch {
		epoch = j.Started.UnixMilli()
	}
	for _, rec := range j.LogData[kind] {
		fmt.Fprintf(w, "%d, %d, %d, %d", rec.At.Milliseconds()+epoch, rec.Value, rec.Dir, rec.BS)
		if j.Spec.LogOffset {
			fmt.Fprintf(w, ", %d", rec.Off)
		}
		fmt.Fprint(w, ", 0\n")
	}
}

// histograms writes one line per window: all buckets, those of a coarser
// resolution summed as log_hist_coarseness asks.
func (j *Job) histograms(w *bufio.Writer) {
	stride := 1 << j.Spec.LogHistCoarse
	for _, rec := range j.HistLog {
		fmt.Fprintf(w, "%d, %d, %d", rec.At.Milliseconds(), rec.Dir, j.Spec.MaxBS[rec.Dir])
		for i := 0; i < hist.Buckets; i += stride {
			var sum uint64
			for _, c := range rec.Counts[i:min(i+stride, hist.Buckets)] {
				sum += c
			}
			fmt.Fprintf(w, ", %d", sum)
		}
		fmt.Fprintln(w)
	}
}

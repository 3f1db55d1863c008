package engine

import (
	"time"

	"github.com/vmdisk/vmdisk/bench/hist"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/bench/result"
)

// logger collects the records of write_bw_log and its kin. Without log_avg_msec
// there is a record per I/O, else one per window and direction.
type logger struct {
	on      bool
	w       *worker
	want    [result.Logs]bool
	avg     int64
	largest bool
	windows [result.Logs][jobfile.Dirs]logWindow
	end     int64 // of the present window
	hist    bool
	histEnd int64
	histLen int64
	last    [jobfile.Dirs][]uint64
}

type logWindow struct{ n, sum, max uint64 }

func (l *logger) init(w *worker) {
	j := w.job
	l.w = w
	l.want[result.LogBW] = j.BWLog != nil
	l.want[result.LogIOPS] = j.IOPSLog != nil
	l.want[result.LogLat] = j.LatLog != nil && !j.NoLat
	l.want[result.LogSlat] = j.LatLog != nil && w.slat
	l.want[result.LogClat] = j.LatLog != nil && !j.NoClat
	l.hist = j.HistLog != nil && j.LogHist > 0
	l.avg, l.largest, l.histLen = int64(j.LogAvg), j.LogMax, int64(j.LogHist)
	l.on = l.hist
	for _, want := range l.want {
		l.on = l.on || want
	}
}

func (l *logger) reset() {
	l.windows = [result.Logs][jobfile.Dirs]logWindow{}
	l.end, l.histEnd = 0, 0
	l.last = [jobfile.Dirs][]uint64{}
}

// add logs one completed I/O.
func (l *logger) add(u *unit, now int64) {
	clat := uint64(max(now-u.issued, 1))
	values := [result.Logs]uint64{
		result.LogBW:   uint64(u.n) * 1e9 / clat / 1024,
		result.LogIOPS: 1,
		result.LogLat:  uint64(now - u.start),
		result.LogSlat: uint64(u.issued - u.start),
		result.LogClat: clat,
	}
	if l.hist {
		l.histogram(now)
	}
	if l.avg == 0 {
		rec := result.LogRecord{At: time.Duration(now - l.w.begin), Dir: u.dir, BS: uint32(u.n), Off: uint64(u.off)}
		for k, want := range l.want {
			if want {
				rec.Value = values[k]
				l.w.res.LogData[k] = append(l.w.res.LogData[k], rec)
			}
		}
		return
	}
	l.roll(now)
	for k, want := range l.want {
		if !want {
			continue
		}
		v := values[k]
		if k == result.LogBW {
			v = uint64(u.n)
		}
		win := &l.windows[k][u.dir]
		win.n++
		win.sum += v
		win.max = max(win.max, v)
	}
}

// roll closes windows that ended before now.
func (l *logger) roll(now int64) {
	if l.end == 0 {
		l.end = l.w.begin + l.avg
	}
	for now >= l.end {
		l.close(l.end)
		l.end += l.avg
		if now-l.end > 10*l.avg {
			l.end += (now - l.end) / l.avg * l.avg // a pause leaves a gap
		}
	}
}

func (l *logger) close(end int64) {
	for k := range l.windows {
		for d := range l.windows[k] {
			win := &l.windows[k][d]
			if win.n == 0 {
				continue
			}
			v := win.sum / win.n
			switch {
			case k == result.LogBW:
				v = win.sum * 1e9 / uint64(l.avg) / 1024
			case k == result.LogIOPS:
				v = win.n * 1e9 / uint64(l.avg)
			case l.largest:
				v = win.max
			}
			l.w.res.LogData[k] = append(l.w.res.LogData[k], result.LogRecord{At: time.Duration(end - l.w.begin), Value: v, Dir: uint8(d)})
			*win = logWindow{}
		}
	}
}

// flush closes the last window.
func (l *logger) flush(now int64) {
	if !l.on {
		return
	}
	if l.avg > 0 && l.end > 0 {
		l.close(now)
	}
	if l.hist {
		l.histEnd = now
		l.histogram(now)
	}
}

// histogram writes the completion latencies of the window that ended.
func (l *logger) histogram(now int64) {
	if l.histEnd == 0 {
		l.histEnd = l.w.begin + l.histLen
	}
	if now < l.histEnd {
		return
	}
	l.histEnd = now + l.histLen
	for d := range l.last {
		counts := l.w.res.Dirs[d].Clat.Counts()
		if l.last[d] == nil {
			l.last[d] = make([]uint64, hist.Buckets)
		}
		delta := make([]uint64, hist.Buckets)
		some := false
		for i, c := range counts {
			delta[i] = c - l.last[d][i]
			some = some || delta[i] > 0
			l.last[d][i] = c
		}
		if some {
			l.w.res.HistLog = append(l.w.res.HistLog, result.HistRecord{At: time.Duration(now - l.w.begin), Dir: uint8(d), Counts: delta})
		}
	}
}

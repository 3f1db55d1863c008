package engine

import (
	"context"

	"github.com/vmdisk/vmdisk/disk"
)

// advice is what fadvise_hint tells the kernel at each opening, by its names in the job file.
var advice = map[string]disk.Advice{"random": disk.AdviceRandom, "sequential": disk.AdviceSequential, "noreuse": disk.AdviceNoReuse}

// warm reads the files in under pre_read, else it does what fio does when it opens them.
func (w *worker) warm() error {
	if !w.job.PreRead {
		w.advise()
		return nil
	}
	for _, t := range w.targets {
		for off := t.start; off < t.start+t.size; off += w.bufSize {
			n := min(w.bufSize, t.start+t.size-off)
			if err := t.d.ReadAt(context.Background(), w.units[0].buf[:n], off); err != nil {
				return err
			}
		}
	}
	return nil
}

// advise does for each file what fio does at its opening: the region's clean pages are dropped, and the
// kernel is told how it will be read. Dirty pages stay, as they do there.
func (w *worker) advise() {
	for _, t := range w.targets {
		a := w.adviser(t)
		if a == nil {
			continue
		}
		if w.job.Invalidate && !w.job.PreRead {
			_ = a.Advise(t.start, t.size, disk.AdviceDrop) // as in fio, a refusal is no reason to fail
		}
		hint, ok := advice[w.job.AdviceHint]
		if w.job.AdviceHint == "type" {
			ok = true
			if hint = disk.AdviceSequential; w.job.Mode.Random {
				hint = disk.AdviceRandom
			}
		}
		if ok {
			_ = a.Advise(t.start, t.size, hint)
		}
	}
}

// again is what fio does when a job that goes on has been over its file once: a pass that found all
// of the last one's pages in memory would measure memory. A random job that goes on for io_size alone
// finds them there, too.
func (w *worker) again(t *target) {
	j := w.job
	drops := j.TimeBased && (j.Mode.Random || len(w.targets) == 1) || j.Mode.Write && !j.Mode.Random
	if !drops || j.Direct || !j.Invalidate {
		return
	}
	if a := w.adviser(t); a != nil {
		_ = a.Advise(t.start, t.size, disk.AdviceDrop) // as in fio, a refusal is no reason to fail
	}
}

// adviser is nil where there is no page cache to advise.
func (w *worker) adviser(t *target) disk.Adviser {
	if w.fake() {
		return nil
	}
	a, ok := disk.As[disk.Adviser](t.d)
	if !ok {
		return nil
	}
	return a
}

package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/disk"
)

// pollQueue makes the queue of a job with hipri=1; nil where the target cannot be
// polled and the job may do without.
func (w *worker) pollQueue(t *target) (disk.Queue, error) {
	p := disk.Polling{Calls: w.job.PollsByCalls(), Percent: 100}
	if p.Calls {
		p.Percent = w.job.HipriShare
	}
	p.Refused = func(err error) {
		if err := w.notPolled(t, err); w.dropped == nil {
			w.dropped = err
		}
	}
	q, err := t.d.NewPollQueue(w.job.Depth+1, p)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, w.notPolled(t, err)
	}
	return q, err
}

// notPolled notes that the job does without polling, or is the error of a job
// that must not.
func (w *worker) notPolled(t *target, why error) error {
	if w.run.cfg.Strict {
		return fmt.Errorf("hipri=1: %s: %w", t.d, rootOf(why))
	}
	w.run.found(jobfile.Note{Pos: w.job.Pos, Warning: true, Found: true,
		Text: fmt.Sprintf("hipri has no effect on %s, which is not polled: %v", t.d, rootOf(why))})
	return nil
}

// rootOf is the error below the disk's context, which the note gives itself.
func rootOf(err error) error {
	var e *disk.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// found adds a note, once.
func (r *runState) found(n jobfile.Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(o jobfile.Note) bool { return o.Found && o.Text == n.Text }
	if !slices.ContainsFunc(r.out.Notes, same) {
		r.out.Notes = append(r.out.Notes, n)
	}
}

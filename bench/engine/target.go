package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/vmdisk/vmdisk/bench/gen"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/disk"
)

// diskKey tells openings apart that cannot be shared by jobs.
type diskKey struct {
	name         string
	direct, pool bool
}

type sharedDisk struct {
	d     *disk.Disk
	users int
}

// target is one file of a worker.
type target struct {
	key    diskKey
	d      *disk.Disk
	q      disk.Queue
	start  int64
	size   int64
	stream *gen.Stream
	flight int // I/Os in this queue
	ended  bool
}

// acquire opens a disk, or shares one that another job of the phase opened the
// same way.
func (r *runState) acquire(ctx context.Context, name string, w *worker) (*disk.Disk, diskKey, error) {
	if w.fake() {
		n := w.needs(1)
		key := diskKey{name: fmt.Sprintf("null:%d", n)}
		return r.share(key, func() (*disk.Disk, error) { return r.cfg.Open(ctx, OpenRequest{Name: name, Null: n}) })
	}
	key := diskKey{name: name, direct: w.job.Direct, pool: w.job.Engine == "posixaio"}
	return r.share(key, func() (*disk.Disk, error) {
		return r.cfg.Open(ctx, OpenRequest{Name: name, Write: r.phaseWrites(name), Direct: key.direct, Pool: key.pool})
	})
}

// fake: the job's engine does nothing, and no disk was named for it.
func (w *worker) fake() bool { return w.job.Engine == "null" && !w.run.cfg.OneDisk }

func (r *runState) share(key diskKey, open func() (*disk.Disk, error)) (*disk.Disk, diskKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.disks[key]; s != nil {
		s.users++
		return s.d, key, nil
	}
	for other := range r.disks {
		if other.name == key.name {
			return nil, key, fmt.Errorf("%s is used by jobs that run together, with direct=%d and direct=%d or with ioengine=posixaio and another; put a stonewall between them",
				diskLabel(key.name), b2i(other.direct), b2i(key.direct))
		}
	}
	d, err := open()
	if err != nil {
		return nil, key, err
	}
	r.disks[key] = &sharedDisk{d: d, users: 1}
	return d, key, nil
}

func diskLabel(name string) string {
	if name == "" {
		return "the disk"
	}
	return name
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// phaseWrites reports whether any job of the present phase changes the disk.
func (r *runState) phaseWrites(name string) bool {
	for _, w := range r.workers {
		if w.job.Phase != int(r.phase.Load()) || !w.writes() {
			continue
		}
		for _, n := range r.names(w.job) {
			if n == name {
				return true
			}
		}
	}
	return false
}

func (w *worker) writes() bool {
	return (w.job.Mode.Write || w.job.Mode.Trim) && !w.job.VerifyOnly
}

// names are the disks of a job.
func (r *runState) names(j *jobfile.Job) []string {
	if r.cfg.OneDisk {
		return []string{""}
	}
	return j.Filenames
}

func (r *runState) release(key diskKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.disks[key]
	if s.users--; s.users > 0 {
		return nil
	}
	delete(r.disks, key)
	if r.cfg.Close != nil {
		return r.cfg.Close(s.d)
	}
	return s.d.Close()
}

// open prepares and opens the worker's files and settles their regions.
func (w *worker) open(ctx context.Context) error {
	names := w.run.names(w.job)
	w.draws = gen.NewDraws(w.job, w.seed(0))
	for i, name := range names {
		if w.fake() && w.needs(1) == 0 {
			return errors.New("ioengine=null without --disk needs size= in bytes")
		}
		if w.run.cfg.Prepare != nil && !w.fake() {
			if err := w.run.cfg.Prepare(ctx, w.job, name, w.needs(len(names))); err != nil {
				return err
			}
		}
		d, key, err := w.run.acquire(ctx, name, w)
		if err != nil {
			return err
		}
		t := &target{key: key, d: d}
		w.targets = append(w.targets, t)
		if w.writes() && d.Info().ReadOnly {
			return fmt.Errorf("rw=%s: %s: %w", w.job.Mode, d, disk.ErrReadOnly)
		}
		if err := w.region(t, len(names)); err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		t.stream = w.stream(t, w.job.Filenames[i])
		w.total += t.size
	}
	return w.limits()
}

// needs is the size that a file must have for the job, 0 if any will do.
func (w *worker) needs(files int) int64 {
	j := w.job
	if j.FileSize[1].Bytes > 0 {
		return j.FileSize[1].Bytes
	}
	if j.Size.Percent > 0 || j.Offset.Percent > 0 || j.OffsetIncrement.Percent > 0 {
		return 0
	}
	if j.Size.Bytes == 0 {
		return 0
	}
	return j.Offset.Bytes + j.OffsetIncrement.Bytes*int64(j.Clone) + j.Size.Bytes/int64(files)
}

// region settles where the worker may work on t.
func (w *worker) region(t *target, files int) error {
	j, size := w.job, t.d.Size()
	t.start = j.Offset.Of(size) + j.OffsetIncrement.Of(size)*int64(j.Clone)
	align := j.OffsetAlign
	if align == 0 && j.Offset.Percent > 0 {
		align = j.MinBlock()
	}
	if align > 0 {
		t.start = (t.start + align - 1) / align * align
	}
	if t.start < 0 || t.start >= size {
		return fmt.Errorf("offset %d is not inside the disk of %d bytes", t.start, size)
	}
	if file := j.FileSize[1].Bytes; file > 0 {
		// size= is then the amount of I/O and no place.
		size = min(size, file)
		if t.start >= size {
			return fmt.Errorf("offset %d is not inside filesize=%d", t.start, size)
		}
	}
	switch {
	case j.FileSize[1].Bytes > 0 && j.Size.Percent == 0:
		t.size = size - t.start
	case j.Size.IsZero():
		t.size = size - t.start
	case j.Size.Percent > 0:
		t.size = min(j.Size.Of(size), size-t.start)
	default:
		t.size = j.Size.Bytes / int64(files)
		if t.size > size-t.start {
			return fmt.Errorf("size=%d at offset %d is more than the disk's %d bytes", j.Size.Bytes, t.start, size)
		}
	}
	if m := w.smallest(); t.size < m {
		return fmt.Errorf("%d bytes to work on are less than one block of %d", t.size, m)
	}
	if j.ZoneMode == "strided" && j.ZoneRange > t.d.Size()-t.start {
		return fmt.Errorf("zonerange=%d at offset %d is more than the disk's %d bytes", j.ZoneRange, t.start, t.d.Size())
	}
	return w.checkBlocks(t.d.Info())
}

// stream makes the stream over t's region, or over the zones that begin there.
func (w *worker) stream(t *target, name string) *gen.Stream {
	size := t.size
	if w.job.ZoneMode == "strided" {
		size = w.job.ZoneRange
	}
	s := gen.NewStream(w.job, t.start, size, w.draws, name)
	s.Stride(t.d.Size())
	return s
}

// smallest is the smallest block of the directions in use.
func (w *worker) smallest() int64 {
	var m int64
	for d := range jobfile.Dirs {
		if n := w.job.MinBS[d]; w.job.Mode.Has(d) && (m == 0 || n < m) {
			m = n
		}
	}
	return m
}

// checkBlocks refuses direct I/O in blocks that the device does not have: the
// disk layer would read-modify-write them, and the figures would be of that.
func (w *worker) checkBlocks(in disk.Info) error {
	if !w.job.Direct || in.Min <= 1 {
		return nil
	}
	for d := range jobfile.Dirs {
		if w.job.Mode.Has(d) && (w.job.MinBS[d]%in.Min != 0 || w.job.Align[d]%in.Min != 0) {
			return fmt.Errorf("%ss of %d bytes with direct=1 do not fit the disk's blocks of %d bytes", jobfile.DirNames[d], w.job.MinBS[d], in.Min)
		}
	}
	return nil
}

// maxMemory bounds the buffers of one job.
const maxMemory = 16 << 30

// limits settles how much the job does in one pass, and its memory.
func (w *worker) limits() error {
	j := w.job
	w.limit = w.total
	if j.FileSize[1].Bytes > 0 && j.Size.Bytes > 0 {
		w.limit = min(w.total, j.Size.Bytes)
	}
	switch {
	case j.IOSize.Percent > 0:
		w.limit = j.IOSize.Of(w.total)
	case j.IOSize.Bytes > 0:
		w.limit = j.IOSize.Bytes
	}
	for d := range jobfile.Dirs {
		if j.Mode.Has(d) || j.BSIsSeqRand && d != jobfile.Trim {
			w.bufSize = max(w.bufSize, j.MaxBS[d])
		}
	}
	const page = 4096
	w.bufSize = (w.bufSize + page - 1) / page * page
	if w.bufSize*int64(j.Depth) > maxMemory {
		return fmt.Errorf("iodepth %d with blocks of up to %d bytes needs more than %d bytes of memory", j.Depth, w.bufSize, int64(maxMemory))
	}
	return nil
}

func (w *worker) closeFiles() error {
	var errs []error
	for _, t := range w.targets {
		errs = append(errs, w.run.release(t.key))
	}
	w.targets = nil
	return errors.Join(errs...)
}

// seed gives each clone and file its own sequence, repeatable over runs unless
// randrepeat=0.
func (w *worker) seed(file uint64) uint64 {
	base := w.job.RandSeed
	if !w.job.RandRepeat && !w.job.RandSeedGiven {
		base = uint64(w.run.start.UnixNano())
	}
	return base + uint64(w.job.Number)*0x9e3779b97f4a7c15 + file*0x632be59bd9b4e019
}

func (w *worker) disks() (list []*disk.Disk) {
	for _, t := range w.targets {
		if t.d != nil {
			list = append(list, t.d)
		}
	}
	return list
}

package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

var imageioFastZero = Experiment{
	Name:    "imageio-fast-zero",
	Summary: "uploads to the transfer daemon that zeroes by writing, and fast; needs root",
	Params: []Param{
		{"image", "", "raw guest image for the single copies; none: one is made with 19 % of data"},
		{"image-size", "1G", "size of the image that is made"},
		{"disk", "128M", "size of each disk of the concurrent uploads; its pattern is that of a 100 GiB disk with 21,180 segments"},
		{"uploads", "4,10", "concurrent uploads, a list"},
		{"full", "33,66", "percent of data in the disks, a list"},
		{"rate", "64M", "what the storage of all concurrent uploads together takes a second, shared alike; 0: as fast as the devices are"},
		{"rounds", "3", "how often each set of uploads runs, in turn with its opposite; the median counts"},
		{"strategy", "zero-each", "how holes are sent; see vmdisk copy --strategy"},
	},
	run: runImageio,
}

// imageioStudy is one run of the experiment.
type imageioStudy struct {
	*run
	vmdisk   string // path of the program
	image    string
	made     bool // the image is not a real one
	disk     int64
	strategy string
	rounds   int
	rate     int64 // 0: none
}

// way is one way to copy the image to a block device.
type way struct {
	Name    string  `json:"name"`
	Command string  `json:"command"`
	Real    float64 `json:"real_seconds"`
	User    float64 `json:"user_seconds"`
	Sys     float64 `json:"sys_seconds"`
	Rate    float64 `json:"virtual_bytes_per_second"`
}

// load is one set of concurrent uploads.
type load struct {
	Uploads int    `json:"uploads"`
	Full    int    `json:"full_percent"`
	Zero    string `json:"zero"` // write or fast
	// Real is the slowest upload's; User and Sys are means of the clients'.
	Real float64 `json:"real_seconds"`
	User float64 `json:"user_seconds"`
	Sys  float64 `json:"sys_seconds"`
	logged
	Virtual  float64 `json:"virtual_bytes_per_second"`
	Data     float64 `json:"data_bytes_per_second"`
	PerSec   float64 `json:"requests_per_second"`
	Share    float64 `json:"elapsed_per_request_seconds"`
	Relative float64 `json:"to_zero_write,omitempty"` // elapsed, fast alone
}

func runImageio(ctx context.Context, r *run) (*findings, error) {
	s := &imageioStudy{run: r, image: r.params.values["image"], disk: r.params.size("disk", 1<<20, 1<<40)}
	size := r.params.size("image-size", 1<<20, 1<<40)
	uploads, full := r.params.numbers("uploads", 1, 64), r.params.numbers("full", 1, 99)
	s.rounds = int(r.params.number("rounds", 1, 99))
	if r.params.values["rate"] != "0" {
		s.rate = r.params.size("rate", 1<<20, 1<<40)
	}
	s.strategy = r.params.choice("strategy", "auto", "write", "zero-each", "status-first", "prezero", "nofallback")
	if *r.params.err != nil {
		return nil, *r.params.err
	}
	if err := s.prepare(ctx, size); err != nil {
		return nil, err
	}
	ways, err := s.ways(ctx)
	if err != nil {
		return nil, err
	}
	var loads []load
	for _, n := range uploads {
		for _, percent := range full {
			pair, err := s.loads(ctx, int(n), int(percent))
			if err != nil {
				return nil, err
			}
			loads = append(loads, pair...)
		}
	}
	return s.report(ways, loads), nil
}

// prepare finds out whether the experiment can run here, and makes the image.
func (s *imageioStudy) prepare(ctx context.Context, size int64) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("loop devices need root: run it with sudo")
	}
	for _, program := range []string{"losetup", "dd", "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: install the package that has it (util-linux, coreutils, qemu-utils)", program)
		}
	}
	if s.vmdisk, err = exec.LookPath(os.Args[0]); err != nil {
		return fmt.Errorf("find the running program: %w", err)
	}
	if s.vmdisk, err = filepath.Abs(s.vmdisk); err != nil || s.image != "" {
		return err
	}
	s.image, s.made = filepath.Join(s.tmp, "image.raw"), true
	return makePattern(ctx, s.image, segments(size, 19))
}

// ways copies the image by each program to one loop device.
func (s *imageioStudy) ways(ctx context.Context) (all []way, err error) {
	st, err := os.Stat(s.image)
	if err != nil {
		return nil, err
	}
	dev, err := newLoop(ctx, filepath.Join(s.tmp, "single"), st.Size())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dev.close()) }()
	upload := func(argv ...string) error { return s.timeWay(ctx, dev, &all, st.Size(), argv) }
	for _, argv := range [][]string{
		{"dd", "if=" + s.image, "of=" + dev.path, "bs=8M", "oflag=direct", "conv=fsync"},
		{"qemu-img", "convert", "-f", "raw", "-O", "raw", "-t", "none", "-T", "none", s.image, dev.path},
		{s.vmdisk, "copy", "--progress", "none", "-f", "raw", "-O", "raw", "--cache", "none", s.image, dev.path},
	} {
		if err := upload(argv...); err != nil {
			return nil, err
		}
	}
	return all, s.withDaemon(ctx, "fast", 0, func(d *labDaemon) error {
		url, err := d.ticket(dev.path, st.Size())
		if err != nil {
			return err
		}
		return upload(s.uploadArgs(d, s.image, url)...)
	})
}

// uploadArgs is the command of one upload, over the network.
func (s *imageioStudy) uploadArgs(d *labDaemon, image, url string) []string {
	return []string{s.vmdisk, "copy", "--progress", "none", "-f", "raw", "--no-unix-socket", "--strategy", s.strategy,
		"--cafile", d.ca, image, url}
}

func (s *imageioStudy) timeWay(ctx context.Context, dev *loop, all *[]way, size int64, argv []string) error {
	if err := dev.clear(); err != nil {
		return err
	}
	t, err := timeCommand(ctx, argv)
	if err == nil {
		err = same(ctx, s.image, dev.path)
	}
	if err != nil {
		return err
	}
	w := way{Name: filepath.Base(argv[0]), Command: shown(argv), Real: t.real.Seconds(), User: t.user.Seconds(), Sys: t.sys.Seconds(),
		Rate: float64(size) / t.real.Seconds()}
	switch len(*all) {
	case 2:
		w.Name = "vmdisk copy"
	case 3:
		w.Name = "upload"
	}
	*all = append(*all, w)
	s.logf("%-11s %.2f s", w.Name, w.Real)
	return nil
}

// loads uploads one disk n times at once, to a daemon that zeroes by writing and
// to one that zeroes fast.
func (s *imageioStudy) loads(ctx context.Context, n, percent int) (pair []load, err error) {
	pattern := segments(s.disk, percent)
	image := filepath.Join(s.tmp, "disk.raw")
	if err := makePattern(ctx, image, pattern); err != nil {
		return nil, err
	}
	devs, err := newLoops(ctx, s.tmp, n, s.disk)
	defer func() { err = errors.Join(err, closeLoops(devs)) }()
	if err != nil {
		return nil, err
	}
	var write, fast []load
	for range s.rounds {
		for zero, all := range map[string]*[]load{"write": &write, "fast": &fast} {
			l := load{Uploads: n, Full: percent, Zero: zero}
			if err := s.upload(ctx, &l, image, devs); err != nil {
				return nil, fmt.Errorf("%d uploads, %d %% full, zero=%s: %w", n, percent, zero, err)
			}
			l.rates(s.disk, pattern.data())
			*all = append(*all, l)
			s.logf("%d uploads, %d %% full, zero=%s: %.2f s, %d requests", n, percent, zero, l.Elapsed, l.Requests)
		}
	}
	pair = []load{medianLoad(write), medianLoad(fast)}
	pair[1].Relative = pair[1].Elapsed / pair[0].Elapsed
	return pair, nil
}

func medianLoad(all []load) load {
	slices.SortFunc(all, func(a, b load) int { return cmp.Compare(a.Elapsed, b.Elapsed) })
	return all[len(all)/2]
}

func (l *load) rates(size, data int64) {
	l.Virtual = float64(size) * float64(l.Uploads) / l.Elapsed
	l.Data = float64(data) * float64(l.Uploads) / l.Elapsed
	l.PerSec = float64(l.Requests) / l.Elapsed
	l.Share = l.Elapsed / float64(l.Requests)
}

// upload runs one upload to each device at the same time.
func (s *imageioStudy) upload(ctx context.Context, l *load, image string, devs []*loop) error {
	for _, d := range devs {
		if err := d.clear(); err != nil {
			return err
		}
	}
	var d *labDaemon
	err := s.withDaemon(ctx, l.Zero, s.rate/int64(len(devs)), func(daemon *labDaemon) error {
		d = daemon
		urls := make([]string, len(devs))
		for i, dev := range devs {
			var err error
			if urls[i], err = d.ticket(dev.path, s.disk); err != nil {
				return err
			}
		}
		return s.together(ctx, l, d, image, urls)
	})
	for _, dev := range devs {
		if err == nil {
			err = same(ctx, image, dev.path)
		}
	}
	if err == nil {
		l.logged, err = readLog(d.log)
	}
	return err
}

func (s *imageioStudy) together(ctx context.Context, l *load, d *labDaemon, image string, urls []string) error {
	times, errs := make([]times, len(urls)), make([]error, len(urls))
	var group sync.WaitGroup
	for i, url := range urls {
		group.Go(func() { times[i], errs[i] = timeCommand(ctx, s.uploadArgs(d, image, url)) })
	}
	group.Wait()
	for _, t := range times {
		l.Real = max(l.Real, t.real.Seconds())
		l.User += t.user.Seconds() / float64(len(times))
		l.Sys += t.sys.Seconds() / float64(len(times))
	}
	return errors.Join(errs...)
}

// times are what time(1) tells.
type times struct{ real, user, sys time.Duration }

func timeCommand(ctx context.Context, argv []string) (t times, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	start := time.Now()
	text, err := cmd.CombinedOutput()
	t.real = time.Since(start)
	if cmd.ProcessState != nil {
		t.user, t.sys = cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime()
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w: %.300s", shown(argv), err, text)
	}
	return t, nil
}

// same compares an image with what arrived on a device.
func same(ctx context.Context, image, device string) (err error) {
	a, err := diskurl.Open(ctx, diskurl.File(image).As(diskurl.FormatRaw).String(), diskurl.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	b, err := diskurl.Open(ctx, diskurl.File(device).As(diskurl.FormatRaw).String(), diskurl.Options{ReadOnly: true, FileOptions: diskurl.FileOptions{ForceShare: true}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	r, err := diskcopy.Compare(ctx, a, b, diskcopy.CompareOptions{})
	if err == nil && !r.Equal {
		err = fmt.Errorf("%s differs from %s at offset %d", device, image, r.Offset)
	}
	return err
}

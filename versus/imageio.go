package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// imageioCases are about the transfer daemon.
func imageioCases() []Case {
	return []Case{
		uploadUnix(), downloadUnix(), uploadHTTPS(), downloadHTTPS(), tenUploads(), throttledUpload(), zeroHuge(),
		daemonMemory(), millionExtents(), daemonShutdown(),
	}
}

// Daemon starts a transfer daemon that ends with the case.
func (e *Env) Daemon(tls bool) (*peer.Daemon, error) { return e.daemonWith(tls, "") }

func (e *Env) daemonWith(tls bool, conf string) (*peer.Daemon, error) {
	d, err := peer.StartDaemon(e.Bin, e.Dir, tls, conf)
	if err == nil {
		e.Defer(func() error { d.Kill(); return nil })
	}
	return d, err
}

// fast changes the case's folder to a file system in memory, where there is one,
// so that protocols are measured and not the disk.
func (e *Env) fast() error {
	const shm = "/dev/shm"
	if _, err := os.Stat(shm); err != nil {
		return nil //nolint:nilerr // the case's folder does as well
	}
	dir, err := os.MkdirTemp(shm, "versus")
	if err != nil {
		return err
	}
	slow := e.Dir
	e.Dir = dir
	e.Defer(func() error { return os.RemoveAll(slow) })
	return nil
}

// transfer is an upload to, or a download from, a new ticket.
type transfer struct {
	d     *peer.Daemon
	e     *Env
	local bool // over the unix socket
}

// upload copies image to dst, a file that is made anew.
func (t transfer) upload(ctx context.Context, image, dst string, check bool) (Sample, error) {
	st, err := os.Stat(image)
	if err != nil {
		return Sample{}, err
	}
	if err := sparse(dst, st.Size()); err != nil {
		return Sample{}, err
	}
	id, err := t.d.Ticket(ctx, dst, "--sparse")
	if err != nil {
		return Sample{}, err
	}
	settle()
	s, err := timed(ctx, t.servers(), nil, t.copy("raw:"+image, t.d.Image(id))...)
	if err == nil && check {
		err = errors.Join(equal(ctx, image, dst), t.checkWay())
	}
	return s, err
}

// checkWay fails if the transfers did not go the way that is measured: a client
// on the daemon's host prefers the unix socket.
func (t transfer) checkWay() error {
	log, err := os.ReadFile(t.d.Log())
	if err != nil {
		return err
	}
	other := "[local] "
	if t.local {
		other = "[127.0.0.1] "
	}
	for _, verb := range []string{"READ", "WRITE"} {
		if strings.Contains(string(log), other+verb+" ticket=") {
			return fmt.Errorf("a %s went the wrong way: %s", verb, other)
		}
	}
	return nil
}

func (t transfer) servers() []*peer.Server { return []*peer.Server{{Proc: t.d.Proc}} }

func (t transfer) copy(from, to string) []string {
	argv := []string{t.e.Bin, "copy", "--progress", "none", "--cafile", t.d.CA()}
	if !t.local {
		argv = append(argv, "--no-unix-socket")
	}
	return append(argv, from, to)
}

// download copies image through a ticket to dst, until it is on stable storage.
func (t transfer) download(ctx context.Context, image, dst string, check bool) (Sample, error) {
	if err := os.Remove(dst); err != nil && !os.IsNotExist(err) {
		return Sample{}, err
	}
	id, err := t.d.Ticket(ctx, image, "--ops", "read")
	if err != nil {
		return Sample{}, err
	}
	settle()
	s, err := timed(ctx, t.servers(), func() error { return durable(dst) }, t.copy(t.d.Image(id), "raw:"+dst)...)
	if err == nil && check {
		err = errors.Join(equal(ctx, image, dst), t.checkWay())
	}
	return s, err
}

const copyNBD = "vmdisk copy, vmdisk serve"

// slower is the limit of the ratio of times for a limit of the ratio of speeds.
func slower(speed float64, than string) Goal { return against(than, 1/speed) }

func uploadUnix() Case {
	return unixCase("imageio/upload-unix", "the real image to a new file through the daemon's unix socket, against a local NBD export",
		transfer.upload, toServer[0].upload)
}

func downloadUnix() Case {
	return unixCase("imageio/download-unix", "the real image from the daemon's unix socket to a new file, against a local NBD export",
		transfer.download, fromServer[0].download)
}

func unixCase(name, what string, ours func(transfer, context.Context, string, string, bool) (Sample, error),
	theirs func(context.Context, *Env, string, bool) (Sample, error),
) Case {
	return Case{
		Name: name, What: what, Unit: Seconds, Short: true, Goals: []Goal{slower(0.85, copyNBD)},
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			d, err := e.Daemon(false)
			if err != nil {
				return nil, err
			}
			t := transfer{d: d, e: e, local: true}
			return []Contender{
				{Name: oursName + " daemon", Run: func(ctx context.Context, round int) (Sample, error) {
					return ours(t, ctx, image, e.Path("transferred"), round == 0)
				}},
				{Name: copyNBD, Run: func(ctx context.Context, round int) (Sample, error) { return theirs(ctx, e, image, round == 0) }},
			}, nil
		},
	}
}

const tlsStream = "Go TLS stream"

func uploadHTTPS() Case {
	return httpsCase("imageio/upload-https", "1 GiB of data to a file in memory over HTTPS, against the same bytes on a bare TLS connection of Go's", transfer.upload)
}

func downloadHTTPS() Case {
	return httpsCase("imageio/download-https", "1 GiB of data to a file in memory over HTTPS, against the same bytes on a bare TLS connection of Go's", transfer.download)
}

func httpsCase(name, what string, ours func(transfer, context.Context, string, string, bool) (Sample, error)) Case {
	return Case{
		Name: name, What: what, Unit: Seconds, Short: true, Goals: []Goal{slower(0.8, tlsStream)},
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			const size = 1 << 30
			if err := e.fast(); err != nil {
				return nil, err
			}
			image := e.Path("image")
			if err := filled(image, size); err != nil {
				return nil, err
			}
			d, err := e.Daemon(true)
			if err != nil {
				return nil, err
			}
			t := transfer{d: d, e: e}
			return []Contender{
				{Name: oursName + " daemon", Run: func(ctx context.Context, round int) (Sample, error) {
					return ours(t, ctx, image, e.Path("transferred"), round == 0)
				}},
				{Name: tlsStream, Run: func(ctx context.Context, _ int) (Sample, error) {
					return streamTLS(ctx, d.Dir, size, nil, io.Discard)
				}},
				// What the storage costs without any protocol.
				{Name: tlsStream + ", file to file", Run: func(ctx context.Context, _ int) (Sample, error) {
					return streamFiles(ctx, d.Dir, image, e.Path("streamed"), size)
				}},
			}, nil
		},
	}
}

const fourUploads = "vmdisk, four uploads"

// tenUploads: more clients cost no throughput.
func tenUploads() Case {
	return Case{
		Name: "imageio/ten-uploads", Unit: Rate, Short: true,
		Goals: []Goal{{Metric: Value, Against: fourUploads, Limit: 0.9, AtLeast: true}},
		What:  "MiB of data per second of ten concurrent uploads over HTTPS to files in memory, against four",
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			if err := e.fast(); err != nil {
				return nil, err
			}
			if err := spread(e.Path("image"), 1<<30, 19); err != nil {
				return nil, err
			}
			d, err := e.Daemon(true)
			if err != nil {
				return nil, err
			}
			t := transfer{d: d, e: e}
			return []Contender{
				{Name: oursName + ", ten uploads", Run: func(ctx context.Context, round int) (Sample, error) { return t.together(ctx, 10, round == 0) }},
				{Name: fourUploads, Run: func(ctx context.Context, round int) (Sample, error) { return t.together(ctx, 4, round == 0) }},
			}, nil
		},
	}
}

// together uploads the case's image n times at once; the value is MiB of data per second.
func (t transfer) together(ctx context.Context, n int, check bool) (Sample, error) {
	errs := make([]error, n)
	samples := make([]Sample, n)
	var group sync.WaitGroup
	start := time.Now()
	for i := range n {
		group.Go(func() {
			samples[i], errs[i] = t.upload(ctx, t.e.Path("image"), t.e.Path(fmt.Sprint("target", i)), false)
		})
	}
	group.Wait()
	took := time.Since(start).Seconds()
	err := errors.Join(errs...)
	if err == nil && check {
		err = errors.Join(equal(ctx, t.e.Path("image"), t.e.Path("target0")), t.checkWay())
	}
	data, sizeErr := allocated(t.e.Path("image"))
	s := Sample{Value: float64(data) * float64(n) / (1 << 20) / took}
	for _, one := range samples {
		s.ClientCPU += one.ClientCPU / time.Duration(n)
	}
	return s, errors.Join(err, sizeErr)
}

// throttledUpload: holes cost next to nothing where the storage is what limits.
func throttledUpload() Case {
	const dd = "dd"
	return Case{
		Name: "imageio/throttled", Unit: Seconds, Short: true,
		Goals: []Goal{against(dd, 1/4.5)},
		What:  "an image of 2 GiB with 19 % of data, over HTTPS to a file on XFS on a device that takes 500 MiB/s, against dd of the whole to there",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			const size = 2 << 30
			if err := e.fast(); err != nil {
				return nil, err
			}
			image := e.Path("image")
			if err := spread(image, size, 19); err != nil {
				return nil, err
			}
			mnt, err := e.throttled(ctx, 500<<20)
			if err != nil {
				return nil, err
			}
			d, err := e.daemonWith(true, "[backend_file]\ncache = none\n") // the default
			if err != nil {
				return nil, err
			}
			t, dst := transfer{d: d, e: e}, filepath.Join(mnt, "target")
			return []Contender{
				{Name: oursName + " upload", Run: func(ctx context.Context, round int) (Sample, error) {
					return t.upload(ctx, image, dst, round == 0)
				}},
				{Name: dd, Run: func(ctx context.Context, _ int) (Sample, error) {
					if err := sparse(dst, size); err != nil {
						return Sample{}, err
					}
					settle()
					return timed(ctx, nil, nil, "dd", "if="+image, "of="+dst, "bs=8M", "oflag=direct", "conv=fsync,notrunc")
				}},
			}, nil
		},
	}
}

// zeroHuge: an empty disk of 8 TiB.
func zeroHuge() Case {
	return Case{
		Name: "imageio/zero-8t", Unit: Seconds, Short: true, Goals: []Goal{atMost(1)},
		What: "an empty image of 8 TiB to an empty target of that size over HTTPS; 10 requests or more are an error",
		Prepare: func(_ context.Context, e *Env) ([]Contender, error) {
			image := e.Path("image")
			if err := sparse(image, 8<<40); err != nil {
				return nil, fmt.Errorf("%w: no files of 8 TiB here: %w", errSkip, err)
			}
			d, err := e.Daemon(true)
			if err != nil {
				return nil, err
			}
			t := transfer{d: d, e: e}
			return []Contender{{Name: oursName + " upload", Run: func(ctx context.Context, _ int) (Sample, error) {
				before, err := requests(d)
				if err != nil {
					return Sample{}, err
				}
				s, err := t.upload(ctx, image, e.Path("target"), false)
				after, logErr := requests(d)
				if n := after - before; err == nil && n >= 10 {
					err = fmt.Errorf("%d requests for an empty disk", n)
				}
				return s, errors.Join(err, logErr)
			}}}, nil
		},
	}
}

// requests counts those that change an image, in the daemon's log.
func requests(d *peer.Daemon) (n int, err error) {
	log, err := os.ReadFile(d.Log())
	for _, verb := range []string{" WRITE ", " ZERO ", " DISCARD ", " FLUSH "} {
		n += strings.Count(string(log), verb+"ticket=")
	}
	return n, err
}

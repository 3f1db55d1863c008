package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/internal/unixsock"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// copier copies the image to the export at a URL and returns how long that took.
type copier func(ctx context.Context, c *cell, url string) (time.Duration, error)

// runCell serves an empty RAM disk through the filters of the cell, lets copy fill
// it, and counts what reached the server and what it wrote.
func (s *study) runCell(ctx context.Context, k cellKind, tool string, copy copier) (c cell, err error) {
	c = cell{cellKind: k, Tool: tool}
	wrote := filepath.Join(s.tmp, "wrote.json")
	target, err := diskurl.Open(ctx, fmt.Sprintf("mem:%d", s.size), diskurl.Options{Filters: s.filters(k, wrote)})
	if err != nil {
		return c, err
	}
	var took time.Duration
	var seen server.Snapshot
	err = s.serve(ctx, target, func(url string, counters *server.Counters) (err error) {
		took, err = copy(ctx, &c, url)
		seen = counters.Snapshot()
		return err
	})
	if err == nil {
		err = s.check(ctx, target)
	}
	if closeErr := target.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return c, fmt.Errorf("%s to server %s, fastzeromode=%s: %w", tool, k.Server, k.FastZeroMode, err)
	}
	c.Seconds = took.Seconds()
	c.Writes, c.Status = seen.Write.Ops, seen.BlockStatus.Ops
	c.Refused = seen.Errors
	c.Zeroes = seen.Zero.Ops - seen.Errors // nothing but fast zeroes may fail in a copy that succeeds
	c.Wrote, err = readWrote(wrote)
	s.logf("%-11s server %s, fastzeromode=%s: %.3f s, %d writes, %d zeroes, %d refused, %d MiB written",
		tool, k.Server, k.FastZeroMode, c.Seconds, c.Writes, c.Zeroes, c.Refused, c.Wrote>>20)
	return c, err
}

// filters make the server, outermost first.
func (s *study) filters(k cellKind, wrote string) []string {
	all := []string{
		fmt.Sprintf("nozero:zeromode=%s,fastzeromode=%s", k.ZeroMode, k.FastZeroMode),
		"stats:statsfile=" + wrote,
		fmt.Sprintf("delay:write=%v,zero=%v", s.writeDelay, s.zeroDelay),
	}
	if !k.BlockStatus {
		all = append([]string{"noextents"}, all...)
	}
	return all
}

// serve runs use against a server of d on a unix socket.
func (s *study) serve(ctx context.Context, d *disk.Disk, use func(url string, c *server.Counters) error) error {
	socket := filepath.Join(s.tmp, "nbd.sock")
	l, err := unixsock.Listen(socket, unixsock.Options{Mode: new(fs.FileMode(0o600))})
	if err != nil {
		return err
	}
	srv, err := server.New(server.Config{Exports: []server.Export{{Disk: d}}})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, l) }()
	err = use("nbd+unix:///?socket="+socket, srv.Counters(""))
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, srv.Shutdown(stop), <-served)
}

// check compares the image with what arrived.
func (s *study) check(ctx context.Context, target *disk.Disk) error {
	src, err := diskurl.Open(ctx, diskurl.File(s.image).As(diskurl.FormatRaw).String(), diskurl.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	r, err := diskcopy.Compare(ctx, src, target, diskcopy.CompareOptions{Strict: true})
	if err == nil && !r.Equal {
		err = fmt.Errorf("the copy differs from the image at offset %d", r.Offset)
	}
	return errors.Join(err, src.Close())
}

// readWrote reads the bytes written from what the stats filter left behind.
func readWrote(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var got struct {
		Write struct{ Bytes int64 }
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return got.Write.Bytes, nil
}

// copyWith is a copy by one of our strategies.
func (s *study) copyWith(strategy diskcopy.Strategy) copier {
	return func(ctx context.Context, c *cell, url string) (took time.Duration, err error) {
		src, err := diskurl.Open(ctx, diskurl.File(s.image).As(diskurl.FormatRaw).String(), diskurl.Options{ReadOnly: true})
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, src.Close()) }()
		dst, err := diskurl.Open(ctx, url, diskurl.Options{})
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, dst.Close()) }()
		start := time.Now()
		st, err := diskcopy.Copy(ctx, dst, src, diskcopy.Options{Strategy: strategy, QueueDepth: s.depth, RequestSize: stripe})
		c.Probes, c.ZeroBy = st.Probes, st.ZeroBy
		return time.Since(start), err
	}
}

// copyWithQemu is the same by qemu-img; its time includes starting the program.
func (s *study) copyWithQemu(ctx context.Context, _ *cell, url string) (time.Duration, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, s.qemuImg, "convert", "-n", "-m", fmt.Sprint(min(s.depth, 16)), "-f", "raw", "-O", "raw", s.image, url)
	if text, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	return time.Since(start), nil
}

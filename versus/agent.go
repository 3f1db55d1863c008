package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/lab/vm"
)

// guestJob is bound by the guest's processor wherever guests are emulated: what an
// engine costs there shows in its rate.
const guestJob = `[r]
rw=randread
bs=4k
direct=1
ioengine=libaio
iodepth=8
time_based
runtime=4
`

// agentOverhead boots one guest and has its agent run the same job by fio and by the
// engine inside the agent, in turn.
func agentOverhead() Case {
	return Case{
		Name: "lab/agent-overhead", Unit: Rate, Goals: []Goal{faster(0.98)},
		What: "4 KiB random reads at depth 8 in one guest, by the agent's own engine and by fio under the same agent",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			g, err := bootGuest(ctx, e)
			if err != nil {
				return nil, err
			}
			return []Contender{
				{Name: oursName + " agent", Run: func(ctx context.Context, _ int) (Sample, error) { return g.measure(ctx, "vmdisk") }},
				{Name: "fio", Run: func(ctx context.Context, _ int) (Sample, error) { return g.measure(ctx, "fio") }},
			}, nil
		},
	}
}

type guest struct {
	vm    *vm.VM
	agent *agent.Conn
}

// bootGuest starts a guest with a disk of 64 MiB and with fio.
func bootGuest(ctx context.Context, e *Env) (*guest, error) {
	image, disk := e.Path("fio.img"), e.Path("disk")
	if err := errors.Join(fioImage(ctx, e.Path("root"), image), filled(disk, 64<<20)); err != nil {
		return nil, err
	}
	spc := spec.Guest{Memory: 256 << 20, CPUs: 1, Machine: "pc", Accel: vm.AccelTCG, Kernel: "auto", Boot: "kernel", Engine: "fio", Image: image, ImageFormat: "raw"}
	if ok, _ := vm.ProbeKVM(ctx); ok {
		spc.Accel = vm.AccelKVM
	}
	setup := spec.Defaults()
	if why := vm.Missing(ctx, spc, setup, "none"); len(why) > 0 {
		return nil, fmt.Errorf("%w: no guest runs here: %s", errSkip, strings.Join(why, "; "))
	}
	kit, err := vm.NewKit(ctx, e.Path("kit"), e.Bin, spc)
	if err != nil {
		return nil, err
	}
	dir := e.Path("vm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	v, err := vm.Boot(ctx, vm.Config{Name: "a", Dir: dir, Guest: spc, Setup: setup, Accel: spc.Accel, Kit: kit,
		Disk: spec.Source{Driver: "file", Path: disk, Format: "raw"}, FileSystem: "none"})
	if err != nil {
		return nil, err
	}
	e.Defer(v.Close)
	c := agent.NewConn(v.Agent())
	e.Defer(c.Close)
	if _, err = c.Hello(ctx); err == nil {
		_, err = c.Prepare(ctx, agent.Prepare{Serial: vm.DataSerial, FileSystem: "none", Image: true})
	}
	return &guest{v, c}, err
}

// fioImage makes a file system with fio and the libraries that it loads.
func fioImage(ctx context.Context, root, image string) error {
	fio, err := exec.LookPath("fio")
	if err != nil {
		return err
	}
	libraries, err := exec.CommandContext(ctx, "ldd", fio).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", fio, err)
	}
	files := []string{fio}
	for _, word := range strings.Fields(string(libraries)) {
		if filepath.IsAbs(word) {
			files = append(files, word)
		}
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		to := filepath.Join(root, f)
		if f == fio {
			to = filepath.Join(root, "usr/bin/fio")
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o755)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"dev", "mnt", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := sparse(image, 256<<20); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-d", root, image).CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// measure runs the job once. The client's CPU time is QEMU's.
func (g *guest) measure(ctx context.Context, engine string) (Sample, error) {
	clock, err := g.agent.Clock(ctx)
	if err != nil {
		return Sample{}, err
	}
	r, err := g.agent.Start(ctx, agent.Run{JobFile: guestJob, Engine: engine, Gate: true})
	if err != nil {
		return Sample{}, err
	}
	if err := r.Ready(ctx); err != nil {
		return Sample{}, err
	}
	before, err := peer.CPU(g.vm.PID())
	if err != nil {
		return Sample{}, err
	}
	if err := r.Go(agent.Monotonic() + int64(200*time.Millisecond) - clock.OffsetNS); err != nil {
		return Sample{}, err
	}
	res, err := r.Wait(ctx)
	if err != nil {
		return Sample{}, err
	}
	after, err := peer.CPU(g.vm.PID())
	if err != nil || res.Err != "" {
		return Sample{}, errors.Join(err, errors.New(res.Err))
	}
	var ios uint64
	for _, j := range res.Jobs {
		ios += j.Dirs[0].IOs
	}
	if ios == 0 {
		return Sample{}, errors.New("the guest read nothing")
	}
	return Sample{Value: res.Jobs[0].Dirs[0].IOPS, ClientCPU: (after - before) / time.Duration(ios)}, nil
}

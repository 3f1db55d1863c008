package spec

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

const two = `
name: two
workloads:
- {name: a, job: "[a]\nruntime=1"}
- {name: b, job: "[b]\nruntime=1"}
set: {cache: none}
options: [ramp_time=1]
sweeps:
- {name: one, workloads: [a], axes: {aio: [native, threads]}, options: [runtime=9], nodes: 2}
- {name: two, client: host, axes: {server: [none, vmdisk]}, set: {aio: io_uring}}
`

func TestSet(t *testing.T) {
	t.Parallel()
	s := mustParse(t, two)
	for _, kv := range []string{
		"nodes=3", "repeats=2", "client=guest", "memory=1G", "cpus=2", "machine=q35", "accel=tcg", "kernel=/k", "image=/i", "image-format=qcow2",
		"boot=kernel", "channel=vsock", "engine=fio", "disk=2G", "data=1G", "file-system=ext4", "devices=/dev/x,/dev/y", "runtime=5", "timeout=6", "size=1M",
	} {
		name, value, _ := strings.Cut(kv, "=")
		if err := s.Set(name, value); err != nil {
			t.Errorf("%s: %v", kv, err)
		}
	}
	want := Guest{Memory: 1 << 30, CPUs: 2, Machine: "q35", Accel: "tcg", Kernel: "/k", Image: "/i", ImageFormat: "qcow2", Boot: "kernel", Channel: "vsock", Engine: "fio"}
	if s.Guest != want || s.Nodes != 3 || s.Sweeps[0].Nodes != 0 || s.Repeats != 2 || s.Disk != (Disk{2 << 30, 1 << 30, "ext4"}) || len(s.Devices) != 2 {
		t.Errorf("%+v", s)
	}
	// The last runtime wins, by its other name, and over the sweep's.
	if opts := []string{"ramp_time=1", "timeout=6", "size=1M"}; !reflect.DeepEqual(s.Options, opts) || len(s.Sweeps[0].Options) != 0 {
		t.Errorf("options %q and %q, want %q", s.Options, s.Sweeps[0].Options, opts)
	}
}

func TestSetAxis(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ set, want string }{
		{"aio=threads", "one/a/aio=threads two/a/server=none two/a/server=vmdisk two/b/server=none two/b/server=vmdisk"},
		{"bs=4k,8k", "one/a/aio=native,bs=4k one/a/aio=native,bs=8k one/a/aio=threads,bs=4k one/a/aio=threads,bs=8k " +
			"two/a/server=none,bs=4k two/a/server=none,bs=8k two/a/server=vmdisk,bs=4k two/a/server=vmdisk,bs=8k " +
			"two/b/server=none,bs=4k two/b/server=none,bs=8k two/b/server=vmdisk,bs=4k two/b/server=vmdisk,bs=8k"},
		{"sweeps=one", "one/a/aio=native one/a/aio=threads"},
		{"workloads=b", "two/b/server=none two/b/server=vmdisk"},
		{"filter=delay:read=1ms,write=2ms", "one/a/aio=native one/a/aio=threads two/a/server=none two/a/server=vmdisk two/b/server=none two/b/server=vmdisk"},
	} {
		s := mustParse(t, two)
		name, value, _ := strings.Cut(c.set, "=")
		if err := s.Set(name, value); err != nil {
			t.Errorf("%s: %v", c.set, err)
			continue
		}
		if got := ids(t, s); got != c.want {
			t.Errorf("%s gives\n%s\nwant\n%s", c.set, got, c.want)
		}
	}
	s := mustParse(t, two)
	if err := s.Set("blocksize", "64k"); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("aio", "io_uring"); err != nil {
		t.Fatal(err)
	}
	cells, err := s.Cells()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cells {
		if c.Setup.BlockSize != "64k" || c.Setup.AIO != "io_uring" || !strings.Contains(strings.Join(c.Options, " "), "bs=64k") {
			t.Errorf("cell %+v", c)
		}
	}
}

func TestSetErrors(t *testing.T) {
	t.Parallel()
	for kv, want := range map[string]string{
		"nodes=0":             `nodes=0: "0" is no number from 1 to 26`,
		"nods=2":              `no field, axis or fio option is called "nods" (did you mean "nodes"?)`,
		"iodpeth=2":           `is called "iodpeth" (did you mean "iodepth"?)`,
		"runtiem=2":           `is called "runtiem" (did you mean "runtime"?)`,
		"memory=4":            `memory=4: 4: want 64M to 16T`,
		"aio=native,nativ":    `aio: "nativ" is none of threads, native, io_uring (did you mean "native"?)`,
		"aio=native,native":   `aio: the value native is there twice`,
		"aio=":                `aio: "" is none of threads`,
		"runtime=x":           `option runtime: `,
		"ioengine=rdma":       `is refused: `,
		"sweeps=one,tow":      `no sweep "tow" (did you mean "two"?); there are: one, two`,
		"workloads=c":         `no workload "c"; there are: a, b`,
		"device=virtio-blk2":  `(did you mean "virtio-blk"?)`,
		"file-system=ext3":    `(did you mean "ext4"?)`,
		"devices=/dev/x,sdy":  `device "sdy": want a path`,
		"kernel=":             `"" is no path`,
		"memory=1G,2G":        `bad size "1G,2G"`,
		"filter=a@nosuch:x=1": `filter "nosuch" is none of`,
	} {
		s, fresh := mustParse(t, two), mustParse(t, two)
		name, value, _ := strings.Cut(kv, "=")
		err := s.Set(name, value)
		var at *Error
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), "--set "+kv+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", kv, err, want)
		}
		if !reflect.DeepEqual(s, fresh) {
			t.Errorf("%s failed and changed the experiment", kv)
		}
	}
	s := mustParse(t, strings.Replace(two, "workloads: [a], axes", "client: guest, workloads: [a], axes", 1))
	if err := s.Set("client", "host"); err == nil || !strings.Contains(err.Error(), "every sweep says itself who its clients are; choose some by --set sweeps=one,two") {
		t.Errorf("client: %v", err)
	}
	if err := s.Set("sweeps", "two"); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("workloads", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.Set("workloads", "b"); err == nil || !strings.Contains(err.Error(), `no workload "b"; there are: a`) {
		t.Errorf("workloads: %v", err)
	}
}

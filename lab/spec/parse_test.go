package spec

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// head begins an experiment that is complete but for its axes; line 4 comes next.
const head = "name: t\nworkloads:\n- {name: w, job: \"[j]\\nrw=read\\nruntime=1\\ntime_based\"}\n"

func TestParse(t *testing.T) {
	t.Parallel()
	s, err := Parse("x.yaml", []byte(`
name: all
title: T
summary: S
client: host
nodes: 3
repeats: 5
guest: {memory: 1.5G, cpus: 2, machine: q35, accel: tcg, kernel: /k, image: /i, image-format: qcow2, boot: kernel, engine: fio}
disk:
  size: 2G
  data: 1G
  file-system: xfs
devices: [/dev/sdx, "0000:44:00.0"]
workloads:
  - name: w
    title: W
    precondition: fill
    job: |
      # two phases
      [a]
      rw=read
      runtime=5
      ramp_time=2
      [b]
      stonewall
      rw=write
      startdelay=1
      runtime=3
  - {name: v, job: "[v]\nsize=1m"}
set: {cache: writeback, aio: io_uring}
options: [randseed=7]
sweeps:
  - name: one
    title: One
    text: Why
    client: guest
    nodes: 2
    workloads: [w]
    set: {iothread: yes}
    options: [ramp_time=1]
    axes:
      poll-max-ns: [0, default, 50_0]
      device: virtio-scsi
    exclude:
      - {poll-max-ns: 0, device: virtio-scsi}
  - name: two
    axes: {server: none}
`))
	var at *Error
	if err == nil || !errors.As(err, &at) || at.Pos != (Pos{"x.yaml", 42, 33}) || !strings.Contains(err.Error(), `"50_0" is no number`) {
		t.Fatalf("error %v, want one of 50_0 at x.yaml:42:33", err)
	}
	if s != nil {
		t.Error("an experiment beside an error")
	}
}

func TestParseAll(t *testing.T) {
	t.Parallel()
	s := mustParse(t, `
name: all
nodes: 3
repeats: 5
guest: {memory: 1.5G, cpus: 2, machine: q35, accel: tcg, kernel: /k, image: /i, channel: serial, engine: fio}
disk: {size: 2G, data: 1G}
devices: [/dev/sdx, "0000:44:00.0"]
workloads:
  - name: w
    precondition: fill
    job: |
      # two phases
      [a]
      rw=read
      runtime=5
      ramp_time=2
      [b]
      stonewall
      rw=write
      startdelay=1
      runtime=3
  - {name: v, title: V, job: "[v]\nsize=1m"}
set: {cache: writeback}
options: [randseed=7]
sweeps:
  - name: one
    text: Why
    client: host
    nodes: 2
    workloads: [w]
    set: {filter: "stats b@delay:read=1ms,write=2ms"}
    options: [ramp_time=1]
    axes: {cache: [none, unsafe]}
  - name: two
    axes: {cluster-size: [default, 64KiB], format: [raw, qcow2]}
    exclude: [{cluster-size: 65536, format: raw}]
`)
	if want := (Guest{Memory: 3 << 29, CPUs: 2, Machine: "q35", Accel: "tcg", Kernel: "/k", Image: "/i", ImageFormat: "raw", Boot: "kernel", Channel: "serial", Engine: "fio"}); s.Guest != want {
		t.Errorf("guest %+v", s.Guest)
	}
	if s.Client != ClientGuest || s.Nodes != 3 || s.Repeats != 5 || s.Title != "all" || s.Disk != (Disk{2 << 30, 1 << 30, "none"}) {
		t.Errorf("experiment %+v", s)
	}
	if !reflect.DeepEqual(s.Devices, []string{"/dev/sdx", "0000:44:00.0"}) {
		t.Errorf("devices %q", s.Devices)
	}
	if w := s.Workload("w"); w == nil || w.Precondition != "fill" || s.Workload("v").Title != "V" || s.Workload("x") != nil {
		t.Errorf("workload %+v", w)
	}
	if x := s.Sweeps[1]; !reflect.DeepEqual(x.Axes[0].Values, []string{"default", "64K"}) || !reflect.DeepEqual(x.Workloads, []string{"w", "v"}) ||
		!reflect.DeepEqual(x.Exclude, []map[string]string{{"cluster-size": "64K", "format": "raw"}}) {
		t.Errorf("second sweep %+v", x)
	}
	cells, err := s.Cells()
	if err != nil {
		t.Fatal(err)
	}
	c := cells[0]
	if c.ID != "one/w/cache=none" || c.Client != ClientHost || c.Nodes != 2 || c.Setup.Filters != "stats b@delay:read=1ms,write=2ms" ||
		!reflect.DeepEqual(c.Options, []string{"randseed=7", "ramp_time=1"}) {
		t.Errorf("first cell %+v", c)
	}
	// Phase a: 1 s of ramp, which the sweep's option makes of the 2, and 5; phase b 1+1+3.
	if got := s.Runtime(c); got != 11*time.Second {
		t.Errorf("runtime %v", got)
	}
	c.Workload = "v"
	if got := s.Runtime(c); got != 0 {
		t.Errorf("runtime %v of a job that ends by its size", got)
	}
	if got := s.Runtime(Cell{Workload: "gone"}); got != 0 {
		t.Errorf("runtime %v of no workload", got)
	}
}

func TestParseOneSweep(t *testing.T) {
	t.Parallel()
	s := mustParse(t, head+"exclude: {device: ide, iothread: on}\naxes: {device: [ide, virtio-blk], iothread: [off, on]}\n")
	if len(s.Sweeps) != 1 || s.Sweeps[0].Name != "t" || len(s.Sweeps[0].Exclude) != 1 {
		t.Fatalf("sweeps %+v", s.Sweeps)
	}
	if got := ids(t, s); got != "t/w/device=ide,iothread=off t/w/device=virtio-blk,iothread=off t/w/device=virtio-blk,iothread=on" {
		t.Error(got)
	}
}

func mustParse(t *testing.T, text string) *Spec {
	t.Helper()
	s, err := Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ids(t *testing.T, s *Spec) string {
	t.Helper()
	cells, err := s.Cells()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range cells {
		id := c.ID
		if c.Impossible != "" {
			id = "!" + id
		}
		list = append(list, id)
	}
	return strings.Join(list, " ")
}

// TestParseErrors: each mistake is found where it is, with advice.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	sweep := head + "sweeps:\n- name: s\n  axes: {aio: threads}\n"
	axes := head + "axes: {aio: threads}\n"
	for text, want := range map[string]string{
		// YAML
		"":                                  `1:1: the file is empty`,
		"a: [1":                             `1:4: sequence end token`,
		"name: x\n  b: 1\n":                 `1:7: mapping value is not allowed`,
		"name: x\nname: y\n":                `2:1: mapping key "name" already defined`,
		"just text":                         `1:1: the experiment: want keys with values`,
		"- a\n":                             `1:1: the experiment: want keys with values`,
		"name: &a x\ntitle: *a\n":           `1:7: anchors, aliases and tags are not read`,
		"<<: {name: x}\n":                   `1:1: the experiment: a key is a plain name`,
		"name: !!str x\n":                   `1:7: anchors, aliases and tags`,
		"name: a\n---\nname: b\n":           `2:1: a second document`,
		"name: [a]\n":                       `1:7: want one value here`,
		"name:\n":                           `1:7: a value is missing`,
		"a: " + strings.Repeat("[", 20):     `1:20: brackets nested deeper than 16`,
		strings.Repeat("# long\n", 10_000):  `1:1: larger than 65536 bytes`,
		"name: x\nnodes: 1\n\tclient: host": `3:1: found character`,
		// keys
		"nam: x\n":                  `1:1: unknown key "nam" in the experiment (did you mean "name"?); known: axes, client,`,
		"guest: {memroy: 1G}\n":     `1:9: unknown key "memroy" in guest (did you mean "memory"?)`,
		"guest:\n  cpu: 1\n":        `2:3: unknown key "cpu" in guest (did you mean "cpus"?)`,
		"guest: 5\n":                `1:8: guest: want keys with values`,
		"disk: {filesystem: xfs}\n": `1:8: unknown key "filesystem" in disk (did you mean "file-system"?)`,
		"workloads:\n- nam: w\n":    `2:3: unknown key "nam" in a workload (did you mean "name"?)`,
		"sweeps:\n- axis: {}\n":     `2:3: unknown key "axis" in a sweep (did you mean "axes"?)`,
		// fields
		"name: Bad Name\n":                                     `1:7: bad name "Bad Name": want up to 64 of`,
		"name: .x\n":                                           `1:7: bad name ".x"`,
		"client: geust\n":                                      `1:9: client: "geust" is none of guest, host (did you mean "guest"?)`,
		"nodes: 27\n":                                          `1:8: nodes: "27" is no number from 1 to 26`,
		"nodes: [1, 2]\n":                                      `1:8: nodes: want one value, not a list`,
		"nodes: []\n":                                          `1:8: the list is empty`,
		"repeats: 0\n":                                         `1:10: repeats: "0" is no number from 1 to 1000`,
		"guest: {memory: 1X}\n":                                `1:17: guest.memory: bad size "1X"`,
		"guest: {memory: 1M}\n":                                `1:17: guest.memory: 1M: want 64M to 16T in multiples of 1M`,
		"guest: {machine: q53}\n":                              `1:18: guest.machine: "q53" is none of pc, q35, microvm (did you mean "q35"?)`,
		"guest: {accel: xen}\n":                                `1:16: guest.accel: "xen" is none of auto, kvm, tcg`,
		"guest: {kernel: \"\"}\n":                              `1:17: guest.kernel: "" is no path`,
		"disk: {size: 1001}\n":                                 `1:14: disk.size: 1001: want 1M to 1P in multiples of 4K`,
		"disk: {file-system: ext5}\n":                          `1:21: disk.file-system: "ext5" is none of none, ext4, xfs (did you mean "ext4"?)`,
		"devices: [sdx]\n":                                     `1:10: devices: device "sdx": want a path such as /dev/sdx, or a PCI address`,
		"devices: [/dev/x, /dev/x]\n":                          `1:10: devices: device /dev/x is given twice`,
		axes + "disk: {size: 1M, data: 2M}\n":                  `5:24: 2M of data do not fit on a disk of 1M: --set disk=2M, or --set data=1M`,
		axes + "guest: {boot: image}\n":                        `5:15: boot=image needs an image: give guest.image (--set image=PATH)`,
		axes + "guest: {image-format: raw}\n":                  `5:23: a format without an image`,
		axes + "guest: {engine: fio}\n":                        `5:17: engine=fio in guests needs an image that holds fio`,
		axes + "guest: {image: /i, boot: image, kernel: /k}\n": `5:41: an image boots its own kernel`,
		axes + "guest: {image: /i, boot: image, machine: microvm}\n": `5:26: machine=microvm has no firmware`,
		// workloads
		"name: x\n":               `1:1: the experiment has no workloads`,
		"title: x\n":              `1:1: the experiment has no name`,
		head:                      `1:1: nothing is varied: add axes: {AXIS: [VALUE, …]}, or sweeps`,
		"workloads: []\n":         `1:12: the list is empty`,
		"workloads: [{job: x}]\n": `1:13: a workload without a name`,
		"workloads: [{name: w}]":  `1:13: workload w has no job: add job:`,
		"workloads: [{name: w, job: \"[a]\", job-file: x}]":              `1:45: workload w has both job and job-file`,
		"workloads: [{name: w, job-file: gone}]":                         `1:33: job-file of workload w: stat gone: no such file`,
		"workloads: [{name: w, job-file: .}]":                            `1:33: job-file of workload w: read .: not a regular file`,
		"workloads: [{name: w, job: \"\"}]":                              `1:13: workload w: no jobs`,
		"workloads: [{name: w, job: \"[a]\", precondition: steddy}]":     `1:49: precondition: "steddy" is none of none, fill, steady (did you mean "steady"?)`,
		"workloads:\n- name: w\n  job: |\n    [a]\n\n    iodpeth=1\n":    `6: workload w: unknown option "iodpeth" (did you mean iodepth?)`,
		"workloads:\n- name: w\n  job: |\n    [a]\n    bs=x\n":           `5: workload w: option bs: `,
		"workloads:\n- name: w\n  job: \"[a]\\n\\nbs=x\"\n":              `3: workload w: option bs: `,
		"workloads:\n- name: w\n  job: |\n    [a]\n    rw=read\n    t\n": `6: workload w: unknown option "t"`,
		"workloads:\n- name: w\n  job: |\n    [a]\n    include x\n":      `5: workload w: cannot read included file: the job file goes to other machines`,
		"workloads:\n- name: w\n  job: |\n    [a]\n    size=${HOME}\n":   `5: workload w: the job file goes to other machines, which have other environment`,
		head + "- {name: w, job: \"[a]\"}\n":                             `4:3: a second workload called w`,
		// axes
		head + "axes: {oi: 1}\n":                    `4:8: unknown axis "oi"`,
		head + "axes: {aoi: native}\n":              `4:8: unknown axis "aoi" (did you mean "aio"?); known: backing,`,
		head + "axes: {aio: [threads, io-uring]}\n": `4:23: aio: "io-uring" is none of threads, native, io_uring (did you mean "io_uring"?)`,
		head + "axes: {aio: [native, native]}\n":    `4:22: aio: the value native is there twice`,
		head + "axes: {iothread: [on, yes]}\n":      `4:23: iothread: the value on is there twice`,
		head + "axes: {aio: []}\n":                  `4:13: the list is empty`,
		head + "axes: {aio: }\n":                    `4:12: a value is missing`,
		head + "axes: {}\n":                         `4:7: axes without an axis`,
		head + "axes: [aio]\n":                      `4:7: axes: want keys with values`,
		head + "set: {aoi: 1}\naxes: {aio: native}": `4:7: unknown axis "aoi" (did you mean "aio"?)`,
		head + "set: {aio: [native, threads]}\n":    `4:12: want one value here`,
		head + "set: {aio: nativ}\n":                `4:12: aio: "nativ" is none of threads, native, io_uring (did you mean "native"?)`,
		axes + "options: [iodepth=4]\n":             `5:11: iodepth is an axis: give it in set or axes`,
		axes + "options: [blocksize=4k]\n":          `5:11: bs is an axis`,
		axes + "options: [runtime]\n":               `5:11: fio option "runtime": want NAME=VALUE`,
		axes + "options: [runtiem=4]\n":             `5:11: unknown option "runtiem" (did you mean runtime?)`,
		axes + "options: [runtime=4, size=x]\n":     `5:22: option size: `,
		// sweeps
		axes + "sweeps: [{name: s, axes: {aio: threads}}]\n": `4:7: axes beside sweeps`,
		head + "sweeps: [{axes: {aio: native}}]\n":           `4:10: a sweep without a name`,
		head + "sweeps: [{name: s}]\n":                       `4:10: sweep s varies nothing`,
		sweep + "- {name: s, axes: {aio: native}}\n":         `7:3: a second sweep called s`,
		sweep + "  workloads: [W]\n":                         `5:3: sweep s: no workload "W"; there are: w`,
		sweep + "  workloads: [w, w]\n":                      `7:18: workload w is named twice`,
		sweep + "  nodes: 0\n":                               `7:10: nodes: "0" is no number from 1 to 26`,
		sweep + "  client: gust\n":                           `7:11: client: "gust" is none of guest, host (did you mean "guest"?)`,
		sweep + "  exclude: [{cache: none}]\n":               `7:14: exclude: sweep s does not vary "cache"; it varies aio`,
		sweep + "  exclude: [{aio: native}]\n":               `7:19: exclude: aio: "native" is none of threads`,
		sweep + "  exclude: [{}]\n":                          `7:13: exclude: a combination without values`,
		sweep + "exclude: [{aio: native}]\n":                 `7:10: exclude without axes beside it`,
	} {
		_, err := Parse("x.yaml", []byte(text))
		var at *Error
		switch {
		case err == nil:
			t.Errorf("no error for\n%s\nwant %s", text, want)
		case !errors.As(err, &at):
			t.Errorf("%T is no *Error: %v", err, err)
		case !strings.HasPrefix(err.Error(), "x.yaml:"+want):
			t.Errorf("for\n%s\ngot  %v\nwant x.yaml:%s", text, err, want)
		}
	}
}

func TestJobFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("j.fio", "[a]\nrw=read\n")
	wrong := write("wrong.fio", "[a]\nrw=raed\n")
	write("large.fio", strings.Repeat("#", maxJobFile+1))
	experiment := func(job string) string {
		return write("e.yaml", "name: e\nworkloads: [{name: w, job-file: "+job+"}]\naxes: {aio: threads}\n")
	}
	s, err := Load(experiment("j.fio"))
	if err != nil || s.Workloads[0].JobFile != "[a]\nrw=read\n" {
		t.Fatalf("%+v, %v", s, err)
	}
	if _, err := Load(experiment("wrong.fio")); err == nil || !strings.HasPrefix(err.Error(), wrong+":2: workload w: option rw: ") {
		t.Errorf("%v, want the job file and its line", err)
	}
	if _, err := Load(experiment("large.fio")); err == nil || !strings.Contains(err.Error(), "is larger than 1048576 bytes") {
		t.Errorf("%v, want that it is too large", err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"falcon-bakcing": `no built-in experiment "falcon-bakcing" (did you mean "falcon-backing"?); there are: falcon-backing, tuning, xen-backends, and no file of that name`,
		"./gone.yaml":    "cannot read the experiment: stat ./gone.yaml: no such file",
		"testdata":       "cannot read the experiment: read testdata: is a folder",
	} {
		if _, err := Load(name); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Load(%q): %v, want %s", name, err, want)
		}
	}
	if _, err := BuiltinText("tunning"); err == nil || !strings.Contains(err.Error(), `did you mean "tuning"?`) {
		t.Errorf("BuiltinText: %v", err)
	}
}

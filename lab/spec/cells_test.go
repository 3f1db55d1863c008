package spec

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares text with a file, or writes it.
func golden(t *testing.T, path, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not what the code gives; go test -update writes it:\n%s", path, text)
	}
}

// TestBuiltin: the cells of each built-in experiment, with all that follows from
// their values.
func TestBuiltin(t *testing.T) {
	t.Parallel()
	if got := Builtin(); !reflect.DeepEqual(got, []string{"falcon-backing", "tuning", "xen-backends"}) {
		t.Errorf("built-in experiments %q", got)
	}
	for _, name := range Builtin() {
		s := load(t, name)
		var b strings.Builder
		for _, c := range cells(t, s) {
			fmt.Fprintf(&b, "%s\n\t%s x%d, %v, file system %s\n\t%s\n", c.ID, c.Client, c.Nodes, s.Runtime(c), c.FileSystem, setupText(&c.Setup))
			if len(c.Options) > 0 {
				fmt.Fprintf(&b, "\t%s\n", strings.Join(c.Options, " "))
			}
			if c.Impossible != "" {
				fmt.Fprintf(&b, "\tnot: %s\n", c.Impossible)
			}
		}
		golden(t, "testdata/"+name+".cells", b.String())
	}
}

// setupText lists the axes that are not as Defaults has them.
func setupText(s *Setup) string {
	defaults := Defaults()
	words := []string{"-"}
	for i := range axes {
		if v := axes[i].get(s); v != axes[i].get(&defaults) {
			words = append(words, axes[i].name+"="+v)
		}
	}
	return strings.Join(words, " ")
}

func load(t *testing.T, name string, set ...string) *Spec {
	t.Helper()
	s, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range set {
		k, v, _ := strings.Cut(kv, "=")
		if err := s.Set(k, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return s
}

func cells(t *testing.T, s *Spec) []Cell {
	t.Helper()
	list, err := s.Cells()
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	return list
}

// TestBuiltinScaled: what people set to try them out, and on machines with devices.
func TestBuiltinScaled(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"falcon-backing runtime=10",
		"falcon-backing nodes=2 runtime=10 repeats=5",
		"falcon-backing disk=2G size=100M runtime=5 memory=256M accel=tcg",
		"falcon-backing file-system=none disk=4G",
		"falcon-backing client=host server=qemu-nbd runtime=10",
		"falcon-backing client=host backing=copy,loop runtime=5 disk=4G",
		"falcon-backing backing=copy filter=b@delay:write=2s server=vmdisk runtime=5",
		"falcon-backing backing=tmpfs",
		"falcon-backing workloads=512 backing=copy,overlay cache=none aio=native iothread=on",
		"xen-backends disk=1G size=256M runtime=5 repeats=1",
		"xen-backends sweeps=host,reader disk=1G size=100% runtime=5 iodepth=16,32",
		"xen-backends sweeps=reader disk=1G runtime=5 workloads=reader backing=loop",
		"xen-backends sweeps=host,host-cached backing=tmpfs",
		"tuning disk=1G runtime=5",
		"tuning disk=256M runtime=2 repeats=1 memory=256M machine=pc",
		"tuning disk=1G runtime=5 devices=/dev/nvme0n1,0000:44:00.0",
		"tuning disk=1G nodes=2 devices=/dev/a,/dev/b,0000:44:00.0,0000:45:00.0",
		"tuning sweeps=format,aio format=qcow2 disk=1G",
		"tuning sweeps=storage,aio,extra-cache client=host aio=threads,io_uring iothread=off disk=1G",
		"tuning sweeps=preallocation format=raw,qcow2",
		"tuning sweeps=extra-scheduler iodepth=1,8,32 bs=4k,64k",
	} {
		words := strings.Fields(line)
		s := load(t, words[0], words[1:]...)
		list := cells(t, s)
		can := 0
		for _, c := range list {
			if c.Impossible == "" {
				can++
			}
		}
		if can == 0 {
			t.Errorf("%s: none of %d cells is possible", line, len(list))
		}
		if strings.Contains(line, "devices=") && can != len(list) {
			t.Errorf("%s: with devices %d of %d cells are possible", line, can, len(list))
		}
	}
}

// TestFingerprint: it is of what is measured, and of nothing else.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	print := func(s *Spec) string {
		t.Helper()
		f, err := s.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	text, err := BuiltinText("tuning")
	if err != nil {
		t.Fatal(err)
	}
	base := print(load(t, "tuning"))
	other, err := Parse("elsewhere.yaml", []byte("# moved\n"+strings.ReplaceAll(string(text), "title: Raw", "title: Not raw")))
	if err != nil {
		t.Fatal(err)
	}
	if print(other) != base {
		t.Error("texts and places change the fingerprint")
	}
	if print(load(t, "tuning", "repeats=2")) != base {
		t.Error("repeats change the fingerprint, so that none can be added")
	}
	seen := map[string]string{base: "as it is"}
	for _, set := range []string{
		"nodes=2", "memory=2G", "disk=1G", "data=1M", "runtime=5", "sweeps=aio", "workloads=randread", "cache=directsync", "kernel=/k", "devices=/dev/x",
	} {
		f := print(load(t, "tuning", set))
		if was, ok := seen[f]; ok {
			t.Errorf("%s has the fingerprint of the experiment %s", set, was)
		}
		seen[f] = set
	}
	changed, err := Parse("x.yaml", []byte(strings.Replace(string(text), "rw=randread", "rw=read", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if print(changed) == base {
		t.Error("another job has the same fingerprint")
	}
	if _, err := load(t, "falcon-backing", "size=1T").Fingerprint(); err == nil {
		t.Error("an impossible experiment has a fingerprint")
	}
}

// one is an experiment of one sweep: of what stands before " | " the axes, after it
// other keys of the sweep and, after another one, of the experiment.
func one(t *testing.T, text string) *Spec {
	t.Helper()
	parts := append(strings.Split(text, " | "), "", "")
	for i := range parts {
		if parts[i] == "-" {
			parts[i] = ""
		}
	}
	job := "{name: w, job: \"[j]\\nrw=read\\nioengine=libaio\"}"
	yaml := "name: t\n" + strings.ReplaceAll(parts[2], "; ", "\n") + "\n"
	if !strings.Contains(yaml, "workloads:") {
		yaml += "workloads: [" + job + "]\n"
	}
	yaml += "sweeps:\n- name: s\n  axes: {" + parts[0] + "}\n  " + strings.ReplaceAll(parts[1], "; ", "\n  ") + "\n"
	return mustParse(t, yaml)
}

// TestImpossible: combinations of two varied axes that cannot be are cells with a
// reason; the others are possible.
func TestImpossible(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ axes, impossible, why string }{
		{"aio: [native, threads], cache: [none, writeback]", "aio=native,cache=writeback", "aio=native needs cache=none or cache=directsync"},
		{"aio: [native, threads], server: [none, vmdisk]", "aio=native,server=vmdisk", "aio=native is QEMU's: aio=io_uring or aio=threads"},
		{"aio: [io_uring, threads], server: [none, nbdkit] | set: {cache: writeback}", "aio=io_uring,server=nbdkit", "aio: server=nbdkit has one kind of file I/O"},
		{"cache: [none, unsafe], server: [none, nbdkit]", "cache=none,server=nbdkit", "server=nbdkit uses the host's page cache: cache=writeback"},
		{"backing: [copy, overlay], format: [raw, qcow2]", "backing=overlay,format=raw", "backing=overlay is qcow2: leave format out"},
		{"backing: [copy, loop], format: [raw, qcow2]", "backing=loop,format=qcow2", "qcow2 images lie in files"},
		{"backing: [sparse, full], format: [raw, qcow2]", "backing=full,format=qcow2", "for qcow2, backing=sparse and preallocation=full"},
		{"backing: [copy, reflink], host-fs: [xfs, ext4]", "backing=reflink,host-fs=ext4", "backing=reflink needs a file system that can share blocks"},
		{"backing: [copy, lvm], host-fs: [here, ext4]", "backing=lvm,host-fs=ext4", "host-fs: host-fs is of files, and backing=lvm has none"},
		{"format: [raw, qcow2], cluster-size: [default, 2M]", "format=raw,cluster-size=2M", "cluster-size: only format=qcow2 has it"},
		{"format: [raw, qcow2], extended-l2: [on, off]", "format=raw,extended-l2=on", "extended-l2: only format=qcow2 has it"},
		{"format: [raw, qcow2], l2-cache-size: [default, 1M]", "format=raw,l2-cache-size=1M", "l2-cache-size: only format=qcow2 has it"},
		{"format: [raw, qcow2], preallocation: [off, metadata]", "format=raw,preallocation=metadata", "preallocation=metadata needs format=qcow2"},
		{"cluster-size: [4K, 16K], extended-l2: [on, off] | set: {format: qcow2}", "cluster-size=4K,extended-l2=on", "extended-l2=on needs clusters of 16K or more"},
		{"backing: [copy, tmpfs], preallocation: [off, full]", "backing=tmpfs,preallocation=full", "images are preallocated with backing=copy and backing=sparse only"},
		{"extended-l2: [on, off], preallocation: [off, full] | set: {backing: overlay}", "extended-l2=off,preallocation=full", "an overlay can be preallocated with extended-l2=on only"},
		{"server: [none, vmdisk], format: [raw, qcow2]", "server=vmdisk,format=qcow2", "server=vmdisk serves raw images only"},
		{"server: [none, qemu-nbd], format: [raw, qcow2] | client: host", "server=none,format=qcow2", "host clients open raw images only: --set server=qemu-nbd"},
		{"server: [none, vmdisk], filter: [none, stats]", "server=none,filter=stats", "filter: filters need server=vmdisk"},
		{"device: [virtio-blk, ide], iothread: [on, off]", "device=ide,iothread=on", "iothread: device=ide has no iothread"},
		{"device: [virtio-scsi, nvme], iothread: [on, off]", "device=nvme,iothread=on", "iothread: device=nvme has no iothread"},
		{"iothread: [on, off], poll-max-ns: [default, 0]", "iothread=off,poll-max-ns=0", "poll-max-ns: it is a property of an iothread"},
		{"device: [virtio-blk, ide], queues: [default, 4]", "device=ide,queues=4", "queues: device=ide has no queues to set"},
		{"device: [virtio-blk, vhost-scsi], backing: [copy, loop]", "device=vhost-scsi,backing=copy", "device=vhost-scsi needs a block device below"},
		{"device: [virtio-blk, vhost-scsi], cache: [none, writeback] | set: {backing: lvm}", "device=vhost-scsi,cache=writeback", "cache: with device=vhost-scsi QEMU opens no file of the host"},
		{"device: [virtio-blk, vhost-scsi], server: [none, vmdisk] | set: {backing: loop}", "device=vhost-scsi,server=vmdisk", "device=vhost-scsi has no server between"},
		{"server: [none, iscsi], cache: [none, writeback]", "server=iscsi,cache=writeback", "cache: the iSCSI target has its own cache"},
		{"backing: [loop, copy], host-scheduler: [default, bfq]", "backing=copy,host-scheduler=bfq", "host-scheduler: it is of a block device"},
		{"iodepth: [job, 1, 8], aio: threads, rw: [job, write] | - | workloads: [{name: w, job: \"[j]\\nrw=read\\nioengine=psync\"}]", "", ""},
		{"backing: [device, loop], device: [virtio-blk, vfio-pci] | - | devices: [/dev/x, \"0000:01:00.0\"]", "backing=loop,device=vfio-pci", "device=vfio-pci takes a PCI device of yours: backing=device"},
	} {
		s := one(t, c.axes)
		if c.impossible == "" {
			if _, err := s.Cells(); err == nil || !strings.Contains(err.Error(), "iodepth=8 is not possible: iodepth: ioengine=psync of job j does one I/O at a time; leave it out by --set iodepth=job,1") {
				t.Errorf("%s: %v", c.axes, err)
			}
			continue
		}
		for _, cell := range cells(t, s) {
			hit := strings.HasSuffix(cell.ID, "/"+c.impossible)
			if hit != (cell.Impossible != "") || !strings.Contains(cell.Impossible, c.why) && hit {
				t.Errorf("%s: cell %s: %q", c.axes, cell.ID, cell.Impossible)
			}
		}
	}
}

// TestCellErrors: a value that is possible nowhere, and everything else that makes
// an experiment as a whole impossible, is an error with its place and advice.
func TestCellErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"aio: [native, threads] | set: {cache: writeback}":                                                                `x.yaml:6:10: sweep s: aio=native is not possible: aio=native needs cache=none or cache=directsync; leave it out by --set aio=threads`,
		"aio: native, cache: writeback":                                                                                   `x.yaml:6:10: sweep s: aio=native is not possible`,
		"device: [virtio-blk, vhost-user-blk] | set: {server: none}":                                                      `device=vhost-user-blk needs server=qsd`,
		"device: [virtio-blk, vhost-user-blk] | set: {server: qsd}":                                                       `device=virtio-blk is not possible: server=qsd is reached by device=vhost-user-blk only`,
		"device: [virtio-blk, ide] | client: host":                                                                        `x.yaml:6:10: sweep s varies device, which is of guests, and its clients are host processes: client=guest,`,
		"iothread: [on, off] | client: host":                                                                              `varies iothread, which is of guests`,
		"aio: threads | client: host; set: {iothread: on}":                                                                `x.yaml:8:9: iothread=on has no effect in any cell: iothread is of guests`,
		"aio: threads | set: {cluster-size: 2M}":                                                                          `x.yaml:7:9: cluster-size=2M has no effect in any cell: only format=qcow2 has it`,
		"aio: threads | - | set: {filter: stats}":                                                                         `x.yaml:2:7: filter=stats has no effect in any cell: filters need server=vmdisk`,
		"aio: threads | - | set: {poll-max-ns: 0}":                                                                        `poll-max-ns=0 has no effect in any cell: it is a property of an iothread: iothread=on`,
		"aio: threads | set: {host-scheduler: bfq}":                                                                       `host-scheduler=bfq has no effect in any cell`,
		"format: qcow2 | set: {server: nbdkit, l2-cache-size: 1M}":                                                        `format=qcow2 is not possible`,
		"format: qcow2 | set: {server: qemu-nbd}; client: host":                                                           ``,
		"backing: \"url:mem:1G\"":                                                                                         `backing=url is for host clients: --set client=host`,
		"backing: \"url:mem:1G\" | client: host":                                                                          ``,
		"backing: \"url:mem:1G\" | client: host; set: {server: qsd-nbd}":                                                  `backing=url is opened by vmdisk`,
		"server: [none, qsd] | client: host":                                                                              `server=qsd is for guests: host clients take`,
		"server: luks | client: host":                                                                                     `server=luks is for guests`,
		"device: vfio-pci":                                                                                                `device=vfio-pci takes a PCI device of yours: backing=device`,
		"device: nvme-userspace, backing: \"device:/dev/x\"":                                                              `device=nvme-userspace takes a PCI address: backing=device:0000:44:00.0`,
		"backing: \"device:0000:44:00.0\"":                                                                                `device=virtio-blk takes a block device, not a PCI address`,
		"backing: \"device:0000:44:00.0\" | client: host":                                                                 `host clients take a block device`,
		"device: [ide, virtio-blk] | - | guest: {machine: microvm}":                                                       `machine=microvm has no IDE: --set machine=pc`,
		"aio: threads, filter: \"c@stats\" | nodes: 2; set: {server: vmdisk}":                                             `filter c@stats: there is no node c, the last one is b`,
		"bs: [4k, 8k] | - | workloads: [{name: w, job: \"[j]\\nbssplit=4k/50:8k/50\"}]":                                   `bs=4k is not possible: bs: job j has bssplit, which wins`,
		"aio: threads | exclude: [{aio: threads}]":                                                                        `x.yaml:5:3: sweep s: every combination is excluded`,
		"pass: [first, second] | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\\nsize=1m\"}]":           `pass=second is not possible: pass=second writes over the whole disk`,
		"backing: [copy, full] | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\\nsize=1m\"}]":           ``,
		"pass: [first, second] | - | workloads: [{name: w, precondition: fill, job: \"[j]\"}]":                            `workload w: precondition=fill writes the disk before the first pass`,
		"aio: threads | - | disk: {file-system: xfs}; workloads: [{name: w, precondition: fill, job: \"[j]\\nsize=1m\"}]": `x.yaml:3:13: workload w: precondition=fill writes over the whole disk, and with it over its file system`,
		// sizes
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\nsize=2g\"}]":                                                                  `sweep s, workload w: job j reaches to byte 2147483648 of a disk of 1G: --set disk=2G, or --set size=1G`,
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\noffset=1g\\nsize=1m\"}]":                                                      `reaches to byte 1074790400 of a disk of 1G: --set disk=1025M`,
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\nnumjobs=3\\noffset_increment=400m\\nsize=400m\"}]":                            `reaches to byte 1258291200 of a disk of 1G: --set disk=1200M, or --set size=224M`,
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\nsize=2000t\"}]":                                                               `of a disk of 1G: --set disk=`,
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\nnumjobs=4\\nsize=1g\"}]":                                                      ``,
		"aio: threads | - | workloads: [{name: w, job: \"[j]\\nsize=100%\"}]":                                                                ``,
		"aio: threads | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\\nnumjobs=4\\nsize=1g\"}]":                           `the jobs' 4 files take 4G, a disk of 1G with ext4 has room for 966367642: --set disk=4608M, or --set size=230M`,
		"aio: threads | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\\nnumjobs=4\\nsize=200m\"}]":                         ``,
		"aio: threads | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\\nnumjobs=4\\nsize=1g\\nfilename=f\\nio_size=1m\"}]": `1 files take 1G`,
		"aio: threads | - | disk: {file-system: ext4}; workloads: [{name: w, job: \"[j]\"}]":                                                 `job j makes files on ext4 and needs their size: add size= to the job, or --set size=SIZE`,
		"bs: [4k, 64k] | options: [size=8k]":                                                                                                 `x.yaml:3: workload w with size=8k bs=64k: job j: size=8192 is less than the block size 65536`,
	} {
		_, err := one(t, text).Cells()
		var at *Error
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want == "":
		case !errors.As(err, &at) || !strings.Contains(err.Error(), want) || at.Pos == (Pos{}):
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// TestTooMany: a matrix that nobody can want.
func TestTooMany(t *testing.T) {
	t.Parallel()
	values := func(from int) string {
		var list []string
		for i := range 30 {
			list = append(list, fmt.Sprint(from+i))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	_, err := one(t, "queues: "+values(1)+", iodepth: "+values(1)+", numjobs: "+values(1)).Cells()
	if err == nil || !strings.Contains(err.Error(), "more than 10000 cells at sweep s") {
		t.Error(err)
	}
}

// TestQuietFixed: a fixed value gives way to the default in the cells where it means
// nothing, so that nobody below has to judge it.
func TestQuietFixed(t *testing.T) {
	t.Parallel()
	s := one(t, "device: [virtio-blk, ide] | set: {iothread: on, poll-max-ns: 0}")
	list := cells(t, s)
	if !list[0].Setup.IOThread || list[0].Setup.PollMaxNS != 0 || list[1].Setup.IOThread || list[1].Setup.PollMaxNS != -1 {
		t.Errorf("setups %+v", list)
	}
	// By --set it is an error where it means nothing anywhere, and what the file has is
	// forgiven when --set made it so.
	s = one(t, "aio: threads | set: {host-fs: xfs}")
	if err := s.Set("backing", "tmpfs"); err != nil {
		t.Fatal(err)
	}
	if c := cells(t, s)[0]; c.Setup.HostFS != "here" {
		t.Errorf("host-fs=%s of a RAM disk", c.Setup.HostFS)
	}
	if err := s.Set("cluster-size", "2M"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cells(); err == nil || !strings.HasPrefix(err.Error(), "--set cluster-size=2M: cluster-size=2M has no effect in any cell: only format=qcow2") {
		t.Error(err)
	}
}

// TestImplied: what follows from a value that is given.
func TestImplied(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ axes, want string }{
		{"backing: overlay", "- backing=overlay format=qcow2"},
		{"device: vhost-user-blk", "- server=qsd device=vhost-user-blk"},
		{"server: qsd", "- server=qsd device=vhost-user-blk"},
		{"backing: device | - | devices: [\"0000:01:00.0\", /dev/x, /dev/y]", "- backing=device:/dev/x"},
		{"backing: device, device: vfio-pci | - | devices: [/dev/x, \"0000:01:00.0\"]", "- backing=device:0000:01:00.0 device=vfio-pci"},
		{"backing: device | nodes: 2 | devices: [/dev/x, /dev/y, /dev/z]", "- backing=device:/dev/x;/dev/y"},
		{"backing: \"device:/dev/x;/dev/y\"", "- backing=device:/dev/x"},
	} {
		if got := setupText(&cells(t, one(t, c.axes))[0].Setup); got != c.want {
			t.Errorf("%s: %s, want %s", c.axes, got, c.want)
		}
	}
	for _, axes := range []string{"backing: device", "backing: \"device:/dev/x\" | nodes: 2", "backing: device, device: vfio-pci | - | devices: [/dev/x]"} {
		if c := cells(t, one(t, axes))[0]; !strings.Contains(c.Impossible, "of your own for each node") {
			t.Errorf("%s: %q", axes, c.Impossible)
		}
	}
}

func TestFileName(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"s/w/aio=native,cache=none": "s+w+aio=native,cache=none",
		"s/w/numa=0:1":              "s+w+numa=0%3A1",
		"s/w/bs=+%":                 "s+w+bs=%2B%25",
		"s/w/backing=url:é":         "s+w+backing=url%3A%C3%A9",
	} {
		if got := (Cell{ID: id}).FileName(); got != want {
			t.Errorf("%s is %s, want %s", id, got, want)
		}
	}
	long := "s/w/filter=" + strings.Repeat("stats ", 100)
	a, b := Cell{ID: long + "a"}.FileName(), Cell{ID: long + "b"}.FileName()
	if a == b || len(a) > longestName || !strings.HasPrefix(a, "s+w+filter=stats%20stats") {
		t.Errorf("long names %s and %s", a, b)
	}
}

// A small file with many values and many jobs has an end: each cell reads its jobs anew.
func TestJobsOfAllCellsAreBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("name: x\nworkloads:\n- name: w\n  job: |\n")
	for i := range 100 {
		fmt.Fprintf(&text, "    [j%d]\n    size=100m\n", i)
	}
	text.WriteString("axes:\n  bs: [512")
	for i := range 300 {
		fmt.Fprintf(&text, ", %d", 512*(i+2))
	}
	text.WriteString("]\n")
	s, err := Parse("x.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cells(); err == nil || !strings.Contains(err.Error(), "jobs in all cells") {
		t.Errorf("30,100 jobs: %v", err)
	}
}

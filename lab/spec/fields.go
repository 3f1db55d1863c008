package spec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/vmdisk/vmdisk/diskurl"
)

// FieldInfo describes a field of an experiment that --set changes.
type FieldInfo struct {
	// Path in a file: guest.memory is memory in the mapping guest.
	Path string
	// Set is its name for --set.
	Set string
	// Values are the closed set or the form of a value.
	Values string
	// Default is what the field is that nobody mentions, "" for nothing.
	Default string
	Help    string
}

// Fields lists what --set changes beside axes, fio options, and the lists of
// workloads and sweeps to keep.
func Fields() []FieldInfo {
	defaults := defaultSpec()
	out := make([]FieldInfo, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		out = append(out, FieldInfo{Path: f.path, Set: f.set, Values: f.form, Default: f.get(defaults), Help: f.help})
	}
	return out
}

// field is one row of the table of fields, all that is known of it.
type field struct {
	path, set string
	kind
	help string
}

// kind is how a field is read and written.
type kind struct {
	form   string
	assign func(s *Spec, value string) error
	get    func(s *Spec) string
}

// fields is the one list of them.
var fields = []field{
	{"client", "client", oneOf(func(s *Spec) *string { return &s.Client }, ClientGuest, ClientHost),
		"guest: every node is a virtual machine; host: a process of this host that uses its disk directly"},
	{"nodes", "nodes", count(func(s *Spec) *int { return &s.Nodes }, 1, maxNodes), "clients that run at the same time, each with a disk of its own: a, b, c…"},
	{"repeats", "repeats", count(func(s *Spec) *int { return &s.Repeats }, 1, 1000), "runs of each cell"},
	{"guest.memory", "memory", bytes(func(s *Spec) *int64 { return &s.Guest.Memory }, 64<<20, 16<<40, 1<<20), "memory of each guest"},
	{"guest.cpus", "cpus", count(func(s *Spec) *int { return &s.Guest.CPUs }, 1, 255), "CPUs of each guest"},
	{"guest.machine", "machine", oneOf(func(s *Spec) *string { return &s.Guest.Machine }, "pc", "q35", "microvm"), "QEMU's machine type"},
	{"guest.accel", "accel", oneOf(func(s *Spec) *string { return &s.Guest.Accel }, "auto", "kvm", "tcg"),
		"auto: KVM where a guest boots with it, else TCG, QEMU's emulation"},
	{"guest.kernel", "kernel", anyText(func(s *Spec) *string { return &s.Guest.Kernel }), "kernel image; auto: the host's newest with modules"},
	{"guest.image", "image", anyText(func(s *Spec) *string { return &s.Guest.Image }), "disk image with a root file system, never written to"},
	{"guest.image-format", "image-format", oneOf(func(s *Spec) *string { return &s.Guest.ImageFormat }, "raw", "qcow2"), "format of the image; raw if an image is given"},
	{"guest.boot", "boot", oneOf(func(s *Spec) *string { return &s.Guest.Boot }, "kernel", "image"),
		"kernel: the kernel with vmdisk as init; image: the image by itself, which starts `vmdisk lab agent`"},
	{"guest.channel", "channel", oneOf(func(s *Spec) *string { return &s.Guest.Channel }, "auto", "serial", "vsock"),
		"how the lab talks to the agent in the guest: a virtio-serial port, vsock, or auto: vsock where host, QEMU and guest have it"},
	{"guest.engine", "engine", oneOf(func(s *Spec) *string { return &s.Guest.Engine }, "vmdisk", "fio"),
		"what runs the jobs: the built-in engine, or the fio of the image (of the host for host clients)"},
	{"disk.size", "disk", bytes(func(s *Spec) *int64 { return &s.Disk.Size }, 1<<20, 1<<50, 4<<10), "virtual size of each disk"},
	{"disk.data", "data", bytes(func(s *Spec) *int64 { return &s.Disk.Data }, 0, 1<<50, 4<<10), "how much data the golden disk holds, which backings clone or copy"},
	{"disk.file-system", "file-system", oneOf(func(s *Spec) *string { return &s.Disk.FileSystem }, noFileSystem, "ext4", "xfs"),
		"of the golden disk; guests mount it and make the jobs' files on it, host clients use the disk itself"},
	{"devices", "devices", deviceList, "block devices of yours, and PCI addresses for devices that want one, that backing=device stands for: what is on them is lost"},
}

// maxNodes is how many names there are, a to z.
const maxNodes = 26

const noFileSystem = "none"

// defaultSpec is an experiment before its file is read.
func defaultSpec() *Spec {
	return &Spec{
		Client: ClientGuest, Nodes: 1, Repeats: 1,
		Guest: Guest{Memory: 256 << 20, CPUs: 1, Machine: "pc", Accel: "auto", Kernel: "auto", Boot: "kernel", Channel: "auto", Engine: "vmdisk"},
		Disk:  Disk{Size: 1 << 30, FileSystem: noFileSystem},
		at:    map[string]Pos{},
	}
}

func oneOf(p func(*Spec) *string, values ...string) kind {
	assign := func(s *Spec, value string) error {
		if !slices.Contains(values, value) {
			return noneOf(value, values)
		}
		*p(s) = value
		return nil
	}
	return kind{strings.Join(values, ", "), assign, func(s *Spec) string { return *p(s) }}
}

func count(p func(*Spec) *int, low, high int64) kind {
	assign := func(s *Spec, value string) error {
		n, err := number(value, low, high)
		if err == nil {
			*p(s) = int(n)
		}
		return err
	}
	return kind{fmt.Sprintf("%d to %d", low, high), assign, func(s *Spec) string { return strconv.Itoa(*p(s)) }}
}

// bytes is a size from low to high in multiples of unit.
func bytes(p func(*Spec) *int64, low, high, unit int64) kind {
	form := fmt.Sprintf("%s to %s in multiples of %s", diskurl.FormatSize(low), diskurl.FormatSize(high), diskurl.FormatSize(unit))
	assign := func(s *Spec, value string) error {
		n, err := diskurl.ParseSize(value)
		if err != nil {
			return err
		}
		if n < low || n > high || n%unit != 0 {
			return fmt.Errorf("%s: want %s", value, form)
		}
		*p(s) = n
		return nil
	}
	return kind{form, assign, func(s *Spec) string { return diskurl.FormatSize(*p(s)) }}
}

func anyText(p func(*Spec) *string) kind {
	assign := func(s *Spec, value string) error {
		if value == "" || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%q is no path", value)
		}
		*p(s) = value
		return nil
	}
	return kind{"PATH", assign, func(s *Spec) string { return *p(s) }}
}

var deviceList = kind{
	form: "PATH or PCI address, …",
	assign: func(s *Spec, value string) error {
		list := strings.Split(value, ",")
		if err := checkDevices(list); err != nil {
			return err
		}
		s.Devices = list
		return nil
	},
	get: func(s *Spec) string { return strings.Join(s.Devices, ",") },
}

// validate checks what takes more than one field.
func (s *Spec) validate() error {
	g := &s.Guest
	if g.Image != "" && g.ImageFormat == "" {
		g.ImageFormat = "raw"
	}
	switch {
	case s.Disk.Data > s.Disk.Size:
		return s.wrong("disk.data", "%s of data do not fit on a disk of %s: --set disk=%[1]s, or --set data=%[2]s",
			diskurl.FormatSize(s.Disk.Data), diskurl.FormatSize(s.Disk.Size))
	case g.Image == "" && g.ImageFormat != "":
		return s.wrong("guest.image-format", "a format without an image: give guest.image (--set image=PATH)")
	case g.Image == "" && g.Boot == "image":
		return s.wrong("guest.boot", "boot=image needs an image: give guest.image (--set image=PATH)")
	case g.Boot == "image" && g.Machine == "microvm":
		return s.wrong("guest.boot", "machine=microvm has no firmware that boots an image: --set boot=kernel, or --set machine=q35")
	case g.Boot == "image" && g.Kernel != "auto":
		return s.wrong("guest.kernel", "an image boots its own kernel: leave kernel out, or --set boot=kernel")
	case g.Engine == "fio" && g.Image == "" && s.hasGuests():
		return s.wrong("guest.engine", "engine=fio in guests needs an image that holds fio: give guest.image (--set image=PATH), or --set engine=vmdisk")
	}
	return nil
}

// wrong is an error at the place where a field was given.
func (s *Spec) wrong(path, format string, args ...any) error {
	return errAt(s.at[path], format, args...)
}

// client is who runs a sweep's workloads.
func (s *Spec) client(w *Sweep) string {
	if w.Client != "" {
		return w.Client
	}
	return s.Client
}

func (s *Spec) hasGuests() bool {
	return slices.ContainsFunc(s.Sweeps, func(w Sweep) bool { return s.client(&w) == ClientGuest })
}

// fieldKeys are the readers of the fields that lie in the mapping called section,
// "" for those at the top.
func (d document) fieldKeys(s *Spec, section string) map[string]func(n ast.Node) error {
	keys := map[string]func(ast.Node) error{}
	for i := range fields {
		f := &fields[i]
		in, key, nested := strings.Cut(f.path, ".")
		if !nested {
			in, key = "", f.path
		}
		if in == section {
			keys[key] = func(n ast.Node) error { return d.field(s, f, n) }
		}
	}
	return keys
}

func (d document) field(s *Spec, f *field, n ast.Node) error {
	var texts []string
	if err := d.texts(n, func(_ Pos, value string) error { texts = append(texts, value); return nil }); err != nil {
		return err
	}
	if len(texts) > 1 && f.path != "devices" {
		return d.fail(n, "%s: want one value, not a list", f.path)
	}
	s.at[f.path] = d.pos(n)
	if err := f.assign(s, strings.Join(texts, ",")); err != nil {
		return d.fail(n, "%s: %w", f.path, err)
	}
	return nil
}

// section reads the mapping called name, all of whose keys are fields.
func (d document) section(s *Spec, name string) func(ast.Node) error {
	return func(n ast.Node) error { return d.keys(n, name, d.fieldKeys(s, name)) }
}

// both joins two tables of keys.
func both(a, b map[string]func(ast.Node) error) map[string]func(ast.Node) error {
	maps.Copy(a, b)
	return a
}

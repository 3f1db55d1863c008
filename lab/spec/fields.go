package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/vmdisk/vmdisk/diskurl"
)

// field is one setting of an experiment that a file and --set can change.
type field struct {
	// path in a file, with the key of the mapping it lies in; set is its name for --set.
	path, set string
	assign    func(s *Spec, value string) error
}

var fields = []field{
	{"client", "client", oneOf(func(s *Spec) *string { return &s.Client }, ClientGuest, ClientHost)},
	{"nodes", "nodes", count(func(s *Spec) *int { return &s.Nodes }, 1, maxNodes)},
	{"repeats", "repeats", count(func(s *Spec) *int { return &s.Repeats }, 1, 1000)},
	{"guest.memory", "memory", bytes(func(s *Spec) *int64 { return &s.Guest.Memory }, 64<<20, 16<<40, 1<<20)},
	{"guest.cpus", "cpus", count(func(s *Spec) *int { return &s.Guest.CPUs }, 1, 255)},
	{"guest.machine", "machine", oneOf(func(s *Spec) *string { return &s.Guest.Machine }, "pc", "q35", "microvm")},
	{"guest.accel", "accel", oneOf(func(s *Spec) *string { return &s.Guest.Accel }, "auto", "kvm", "tcg")},
	{"guest.kernel", "kernel", anyText(func(s *Spec) *string { return &s.Guest.Kernel })},
	{"guest.image", "image", anyText(func(s *Spec) *string { return &s.Guest.Image })},
	{"guest.image-format", "image-format", oneOf(func(s *Spec) *string { return &s.Guest.ImageFormat }, "raw", "qcow2")},
	{"guest.boot", "boot", oneOf(func(s *Spec) *string { return &s.Guest.Boot }, "kernel", "image")},
	{"guest.engine", "engine", oneOf(func(s *Spec) *string { return &s.Guest.Engine }, "vmdisk", "fio")},
	{"disk.size", "disk", bytes(func(s *Spec) *int64 { return &s.Disk.Size }, 1<<20, 1<<50, 4<<10)},
	{"disk.data", "data", bytes(func(s *Spec) *int64 { return &s.Disk.Data }, 0, 1<<50, 4<<10)},
	{"disk.file-system", "file-system", oneOf(func(s *Spec) *string { return &s.Disk.FileSystem }, noFileSystem, "ext4", "xfs")},
	{"devices", "devices", devices},
}

// maxNodes is how many names there are, a to z.
const maxNodes = 26

const noFileSystem = "none"

// defaultSpec is an experiment before its file is read.
func defaultSpec() *Spec {
	return &Spec{
		Client: ClientGuest, Nodes: 1, Repeats: 1,
		Guest: Guest{Memory: 256 << 20, CPUs: 1, Machine: "pc", Accel: "auto", Kernel: "auto", Boot: "kernel", Engine: "vmdisk"},
		Disk:  Disk{Size: 1 << 30, FileSystem: noFileSystem},
		at:    map[string]Pos{},
	}
}

func oneOf(p func(*Spec) *string, values ...string) func(*Spec, string) error {
	return func(s *Spec, value string) error {
		if !slices.Contains(values, value) {
			return noneOf(value, values)
		}
		*p(s) = value
		return nil
	}
}

func count(p func(*Spec) *int, low, high int64) func(*Spec, string) error {
	return func(s *Spec, value string) error {
		n, err := number(value, low, high)
		if err == nil {
			*p(s) = int(n)
		}
		return err
	}
}

// bytes is a size from low to high in multiples of unit.
func bytes(p func(*Spec) *int64, low, high, unit int64) func(*Spec, string) error {
	return func(s *Spec, value string) error {
		n, err := diskurl.ParseSize(value)
		if err != nil {
			return err
		}
		if n < low || n > high || n%unit != 0 {
			return fmt.Errorf("%s: want %s to %s in multiples of %s", value, diskurl.FormatSize(low), diskurl.FormatSize(high), diskurl.FormatSize(unit))
		}
		*p(s) = n
		return nil
	}
}

func anyText(p func(*Spec) *string) func(*Spec, string) error {
	return func(s *Spec, value string) error {
		if value == "" || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%q is no path", value)
		}
		*p(s) = value
		return nil
	}
}

func devices(s *Spec, value string) error {
	list := strings.Split(value, ",")
	if err := checkDevices(list); err != nil {
		return err
	}
	s.Devices = list
	return nil
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

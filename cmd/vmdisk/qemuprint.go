package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// qemuInfo has qemu-img's field names.
type qemuInfo struct {
	VirtualSize int64  `json:"virtual-size"`
	Filename    string `json:"filename"`
	Format      string `json:"format"`
	ActualSize  *int64 `json:"actual-size,omitempty"`
	DirtyFlag   bool   `json:"dirty-flag"`
}

// printQEMU prints r in a form of qemu-img.
func (r *infoResult) printQEMU(w io.Writer, name, form string) error {
	q := qemuInfo{VirtualSize: r.Size, Filename: name, Format: r.Format}
	if u, err := diskurl.Parse(name); err == nil && !u.Local() {
		q.Filename = u.Redacted()
	} else if err == nil {
		var st unix.Stat_t
		if err := unix.Stat(u.Path(), &st); err != nil {
			return &os.PathError{Op: "stat", Path: u.Path(), Err: err}
		}
		n := st.Blocks * sector
		q.ActualSize = &n
	}
	if form == outputJSON {
		return writeJSON(w, q)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "image: %s\nfile format: %s\nvirtual size: %s (%d bytes)\n", q.Filename, q.Format, iecText(q.VirtualSize), q.VirtualSize)
	size := "unavailable"
	if q.ActualSize != nil {
		size = iecText(*q.ActualSize)
	}
	fmt.Fprintf(&b, "disk size: %s\n", size)
	_, err := io.WriteString(w, b.String())
	return err
}

// iecText is a size as qemu-img writes it: three digits and a unit.
func iecText(n int64) string {
	value := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"} {
		if value < 1000 {
			return fmt.Sprintf("%.3g %s", value, unit)
		}
		value /= 1024
	}
	return fmt.Sprintf("%.3g EiB", value)
}

// qemuView tells two kinds of segments apart, as qemu-img does.
func (v view) qemuView() view {
	v.kind = func(s *segment) string { return fmt.Sprint(s.zero(), s.flags&disk.ExtentBacking != 0) }
	return v
}

// qemuJSON prints the map as qemu-img map --output=json does. Only a raw disk's offsets
// are known.
func (v view) qemuJSON(raw bool) mapShow {
	return func(ctx context.Context, w io.Writer, d *disk.Disk) error {
		sep, v := "[", v.qemuView()
		err := v.walk(ctx, d, func(s segment) error {
			depth, offset := 0, ""
			if s.flags&disk.ExtentBacking != 0 {
				depth = 1
			}
			if raw {
				offset = fmt.Sprintf(`, "offset": %d`, s.off)
			}
			_, err := fmt.Fprintf(w, `%s{ "start": %d, "length": %d, "depth": %d, "present": true, "zero": %t, "data": %t%s}`,
				sep, s.off, s.length, depth, s.zero(), !s.zero(), offset)
			sep = ",\n"
			return err
		})
		if err != nil {
			return err
		}
		if sep == "[" {
			_, err = io.WriteString(w, sep)
		}
		_, end := io.WriteString(w, "]\n")
		if err == nil {
			err = end
		}
		return err
	}
}

// qemuText prints the data as qemu-img map does.
func (v view) qemuText(name string) mapShow {
	return func(ctx context.Context, w io.Writer, d *disk.Disk) error {
		if _, err := fmt.Fprintf(w, "%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File"); err != nil {
			return err
		}
		v := v.qemuView()
		return v.walk(ctx, d, func(s segment) error {
			if s.zero() {
				return nil
			}
			_, err := fmt.Fprintf(w, "%-16s%-16s%-16s%s\n", hexText(s.off), hexText(s.length), hexText(s.off), name)
			return err
		})
	}
}

func hexText(n int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%#x", n)
}

package monitor

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// path describes where a file, folder or block device lies.
func (d *describer) path(name string) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return
	}
	number := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		number = st.Rdev
	} else if m := d.mount(name); m != nil {
		d.add("file system of "+name, fmt.Sprintf("%s on %s (%s)", m.FSType, m.Source, options(m)))
		// btrfs, zfs and overlays have device numbers of their own.
		var source unix.Stat_t
		if unix.Stat(m.Source, &source) == nil && source.Mode&unix.S_IFMT == unix.S_IFBLK {
			number = source.Rdev
		}
	}
	d.device(number)
}

// mount returns the mount that a path lies on, nil if it can't be told.
func (d *describer) mount(name string) *procfs.MountInfo {
	name, err := filepath.Abs(name)
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	fs, err := procfs.NewFS(d.proc)
	if err != nil {
		return nil
	}
	mounts, err := fs.GetProcMounts(os.Getpid())
	if err != nil {
		return nil
	}
	var best *procfs.MountInfo
	for _, m := range mounts {
		at := strings.TrimSuffix(m.MountPoint, "/")
		// A later mount on the same place hides the earlier one.
		if (name == at || strings.HasPrefix(name, at+"/")) && (best == nil || len(m.MountPoint) >= len(best.MountPoint)) {
			best = m
		}
	}
	return best
}

// options joins those of the mount and those of the file system.
func options(m *procfs.MountInfo) string {
	all := maps.Clone(m.Options)
	maps.Copy(all, m.SuperOptions)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if v := all[k]; v != "" {
			k += "=" + v
		}
		out = append(out, k)
	}
	return strings.Join(out, ",")
}

// device describes the block device of a device number: for a partition, the disk.
func (d *describer) device(number uint64) {
	link := filepath.Join(d.sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)))
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return // a file system without a device
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	name := filepath.Base(dir)
	var parts []string
	if model := d.read(dir, "device/model"); model != "" {
		parts = append(parts, model)
	}
	if s := d.read(dir, "queue/scheduler"); s != "" {
		parts = append(parts, "scheduler "+inForce(s))
	}
	switch d.read(dir, "queue/rotational") {
	case "0":
		parts = append(parts, "not rotational")
	case "1":
		parts = append(parts, "rotational")
	}
	if s := d.read(dir, "queue/write_cache"); s != "" {
		parts = append(parts, "cache "+s)
	}
	if s := d.read(dir, "loop/backing_file"); s != "" {
		parts = append(parts, "over "+s)
	}
	d.add("device "+name, strings.Join(parts, ", "))
}

// inForce picks from "none [mq-deadline]" the one in brackets.
func inForce(list string) string {
	_, rest, ok := strings.Cut(list, "[")
	if !ok {
		return list
	}
	name, _, _ := strings.Cut(rest, "]")
	return name
}

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// sysfs is where the kernel tells of its devices.
type sysfs string

const theSys sysfs = "/sys"

// file of a block device.
func (s sysfs) file(disk string, names ...string) string {
	return filepath.Join(append([]string{string(s), "block", disk}, names...)...)
}

// notDisks are names of block devices that are no guest's disk.
var notDisks = []string{"loop", "ram", "zram", "sr", "fd", "dm-", "nbd", "md"}

func (s sysfs) disks() []string {
	entries, err := os.ReadDir(filepath.Join(string(s), "block"))
	if err != nil {
		return nil
	}
	var names []string
next:
	for _, e := range entries {
		for _, prefix := range notDisks {
			if strings.HasPrefix(e.Name(), prefix) {
				continue next
			}
		}
		names = append(names, e.Name())
	}
	return names
}

// partitions of a disk, and the disk itself.
func (s sysfs) partitions(disk string) []string {
	files, _ := filepath.Glob(s.file(disk, disk+"*", "partition"))
	var all []string
	for _, f := range files {
		all = append(all, filepath.Base(filepath.Dir(f)))
	}
	return append(all, disk)
}

const (
	// findWait is how long a disk may take to show up: a bus is scanned in the
	// background.
	findWait = 20 * time.Second
	// patience is how long the scan gets to find what it was told to look for.
	patience = 3 * time.Second
)

// find returns the kernel's name of the disk with a serial number; where no disk
// has it, of the first that is not the image's.
func (s sysfs) find(ctx context.Context, serial string) (string, error) {
	begun := time.Now()
	for {
		first := ""
		for _, name := range s.disks() {
			got := s.serial(name)
			if got == serial && serial != "" {
				return name, nil
			}
			if first == "" && got != imageSerial {
				first = name
			}
		}
		if first != "" && (serial == "" || time.Since(begun) > patience) {
			return first, nil
		}
		if time.Since(begun) > findWait {
			return "", fmt.Errorf("the guest has no disk with serial number %q (it has: %s): its kernel may lack the driver", serial, strings.Join(s.disks(), " "))
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// imageSerial is the serial number of the disk with the guest image's root.
const imageSerial = "vmdisk-image"

// serial reads a disk's serial number where its bus has it: virtio, NVMe, or page
// 0x80 of SCSI and ATA disks, which begins with four bytes of header.
func (s sysfs) serial(disk string) string {
	for _, file := range []string{s.file(disk, "serial"), s.file(disk, "device", "serial")} {
		if text, err := os.ReadFile(file); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	if page, err := os.ReadFile(s.file(disk, "device", "vpd_pg80")); err == nil && len(page) > 4 {
		return strings.Trim(string(page[4:]), " \x00\n")
	}
	return ""
}

// setScheduler sets the I/O scheduler of a disk and returns the one in force.
func (s sysfs) setScheduler(disk, want string) (string, error) {
	file := s.file(disk, "queue", "scheduler")
	if want != "" && want != "default" {
		if err := os.WriteFile(file, []byte(want), 0); err != nil {
			return "", fmt.Errorf("scheduler %s of %s: %w; the guest's kernel may lack it", want, disk, err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil // a device without a choice
	}
	_, rest, ok := strings.Cut(string(text), "[")
	now, _, _ := strings.Cut(rest, "]")
	if !ok {
		return strings.TrimSpace(string(text)), nil
	}
	return now, nil
}

// deviceStat are a device's counters of finished I/O.
type deviceStat struct {
	at      time.Time
	ios     uint64
	sectors uint64
}

func (s sysfs) stat(disk string) (deviceStat, bool) {
	if disk == "" {
		return deviceStat{}, false
	}
	text, err := os.ReadFile(s.file(disk, "stat"))
	if err != nil {
		return deviceStat{}, false
	}
	// Of reads and writes: I/Os, merged, sectors, milliseconds.
	var n [8]uint64
	for i, field := range strings.Fields(string(text)) {
		if i < len(n) {
			n[i] = parseCount(field)
		}
	}
	return deviceStat{at: time.Now(), ios: n[0] + n[4], sectors: n[2] + n[6]}, true
}

// since are the rates between two readings; bw in bytes per second.
func (d deviceStat) since(old deviceStat) (iops, bw float64) {
	span := d.at.Sub(old.at).Seconds()
	if span <= 0 || d.ios < old.ios || d.sectors < old.sectors {
		return 0, 0
	}
	return float64(d.ios-old.ios) / span, float64(d.sectors-old.sectors) * sector / span
}

package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sysOf makes a sysfs of files with their content.
func sysOf(t *testing.T, files map[string]string) sysfs {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "block", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return sysfs(dir)
}

// TestFindDisk: a disk is found by its serial number on every bus, or as the first
// that is not the image's.
func TestFindDisk(t *testing.T) {
	t.Parallel()
	s := sysOf(t, map[string]string{
		"loop0/size": "0", "nbd0/size": "0", "dm-0/size": "0",
		"nvme0n1/device/serial":  "lab-nvme            \n",
		"sda/device/vpd_pg80":    "\x00\x80\x00\x14            lab-sata",
		"sdb/device/vpd_pg80":    "\x00\x80",
		"vda/serial":             "vmdisk-image",
		"vda/vda1/partition":     "1",
		"vda/vda2/partition":     "2",
		"vdb/serial":             "lab-virtio",
		"nvme0n1/nvme0n1p1/size": "1", "nvme0n1/nvme0n1p1/partition": "1",
	})
	for serial, want := range map[string]string{"lab-nvme": "nvme0n1", "lab-sata": "sda", "lab-virtio": "vdb", "vmdisk-image": "vda", "": "nvme0n1"} {
		if got, err := s.find(t.Context(), serial); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", serial, got, err, want)
		}
	}
	if got := strings.Join(s.disks(), " "); got != "nvme0n1 sda sdb vda vdb" {
		t.Errorf("disks %s", got)
	}
	if got := strings.Join(s.partitions("vda"), " "); got != "vda1 vda2 vda" {
		t.Errorf("partitions %s", got)
	}
	only := sysOf(t, map[string]string{"vda/serial": imageSerial, "vdb/size": "1"})
	if got, err := only.find(t.Context(), "none"); err != nil || got != "vdb" {
		t.Errorf("without a serial number: %s, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if got, err := sysOf(t, nil).find(ctx, "x"); err == nil {
		t.Errorf("found %s where nothing is", got)
	}
}

// TestScheduler: it is set where it must be, and told as the kernel tells it.
func TestScheduler(t *testing.T) {
	t.Parallel()
	s := sysOf(t, map[string]string{"vda/queue/scheduler": "none [mq-deadline] kyber \n", "vdb/queue/scheduler": "none\n", "vdc/size": "0"})
	for disk, want := range map[string]string{"vda": "mq-deadline", "vdb": "none", "vdc": ""} {
		if got, err := s.setScheduler(disk, "default"); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", disk, got, err, want)
		}
	}
	if got, err := s.setScheduler("vdb", "bfq"); err != nil || got != "bfq" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.setScheduler("none", "bfq"); err == nil || !strings.Contains(err.Error(), "scheduler bfq of none") {
		t.Errorf("%v", err)
	}
}

// TestDeviceStat: rates come from the kernel's counters, and never are negative.
func TestDeviceStat(t *testing.T) {
	t.Parallel()
	s := sysOf(t, map[string]string{"vda/stat": " 10 0 80 5 20 0 160 7 0 12 12 0 0 0 0\n"})
	got, ok := s.stat("vda")
	if !ok || got.ios != 30 || got.sectors != 240 {
		t.Fatalf("%+v", got)
	}
	old := deviceStat{at: got.at.Add(-2 * time.Second), ios: 10, sectors: 40}
	if iops, bw := got.since(old); iops != 10 || bw != 100*512 {
		t.Errorf("%v, %v", iops, bw)
	}
	if iops, bw := old.since(got); iops != 0 || bw != 0 {
		t.Errorf("backwards: %v, %v", iops, bw)
	}
	if _, ok := s.stat(""); ok {
		t.Error("no disk has counters")
	}
}

package disktest_test

import (
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/disk/disktest"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// The suite itself, over layers with every limit that Info knows: it proves the
// emulations of disk, since Strict refuses what its Info does not allow.
func TestConformanceOfLimitedDisks(t *testing.T) {
	const size = 2<<20 + 1000
	for name, edit := range map[string]func(*disk.Info){
		"plain":        func(*disk.Info) {},
		"sectors":      func(in *disk.Info) { in.Min = 512 },
		"blocks":       func(in *disk.Info) { in.Min, in.MaxIO, in.MaxZero = 4096, 20_000, 50_000 },
		"huge-blocks":  func(in *disk.Info) { in.Min, in.MaxIO, in.MaxZero, in.MaxTrim = 65536, 4096, 1, 1 },
		"odd-limits":   func(in *disk.Info) { in.MaxIO, in.MaxZero, in.MaxTrim = 7777, 33_333, 11_111 },
		"trim-align":   func(in *disk.Info) { in.Min, in.TrimAlign, in.MaxTrim = 512, 6144, 10_000 },
		"no-zero":      func(in *disk.Info) { in.Min, in.Zero, in.FastZero, in.Trim = 4096, disk.None, disk.None, disk.None },
		"emulated-fua": func(in *disk.Info) { in.FUA, in.Volatile = disk.Emulated, true },
		"no-fua":       func(in *disk.Info) { in.FUA, in.Min = disk.None, 512 },
		"no-maps":      func(in *disk.Info) { in.Maps, in.KnownZero = nil, false },
		"slow-zero":    func(in *disk.Info) { in.FastZero = disk.Emulated },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disktest.Conformance(t, func(tb testing.TB) *disk.Disk {
				child, err := mem.Open(size)
				if err != nil {
					tb.Fatal(err)
				}
				d, _ := disktest.Strict(child, edit)
				return d
			}, disktest.Options{Ops: 200})
		})
	}
}

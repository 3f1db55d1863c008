package vm

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/procfs"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/u-root/u-root/pkg/kmodule"

	"github.com/vmdisk/vmdisk/lab/agent"
	"github.com/vmdisk/vmdisk/lab/spec"
)

// Kit is what guests boot. It is safe for concurrent use.
type Kit struct {
	Kernel  string // path
	Version string // of the kernel
	// Lacks are modules for parts of the lab that this kernel neither has nor has
	// built in: "ahci", "bfq".
	Lacks []string

	kernel kernel
	dir    string
	binary string
	khz    int

	mu   sync.Mutex
	made map[string]bool // by path: initramfs files that are there
}

// everyModule is asked for once, to know what a kernel lacks.
var everyModule = []string{
	"virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "ahci", "ata_piix",
	"nvme", "ext4", "xfs", "btrfs", "mq_deadline", "kyber_iosched", "bfq", "pvpanic_pci", vsockModule,
}

// NewKit finds the guests' kernel and checks that vmdisk, the path of this
// program, can be their init. The initramfs files are made in dir when guests
// need them, and belong to whom dir belongs.
func NewKit(ctx context.Context, dir, vmdisk string, guest spec.Guest) (*Kit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, err := findKernel(guest.Kernel)
	if err != nil {
		return nil, err
	}
	if err := checkInit(vmdisk); err != nil {
		return nil, err
	}
	_, lacks, err := k.load(everyModule)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder for the guests' initramfs: %w", err)
	}
	return &Kit{
		Kernel: k.path, Version: k.version, Lacks: lacks,
		kernel: k, dir: dir, binary: vmdisk, khz: hostKHz(), made: map[string]bool{},
	}, nil
}

// checkInit refuses what a guest's kernel could not run as its first program.
func checkInit(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("the guests' init %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("the guests' init %s is for %s: want a vmdisk built with GOARCH=amd64", path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("the guests' init %s needs shared libraries, which the guests don't have: build it with CGO_ENABLED=0", path)
		}
	}
	return nil
}

func (k *Kit) has(module string) bool { return !slices.Contains(k.Lacks, module) }

// cmdline is the kernel's. tsc_early_khz: without it the microvm hangs in three of
// four boots, and an emulated guest on a loaded host once counted 12.4 s for 5.7.
func (k *Kit) cmdline(c Config) string {
	line := "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check"
	if k.khz > 0 {
		line += fmt.Sprintf(" tsc_early_khz=%d", k.khz)
	}
	if c.vsock.port != 0 {
		line += fmt.Sprintf(" %s%d", agent.VsockWord, c.vsock.port)
	}
	return line
}

// hostKHz is the rate of the TSC as the host's kernel knows it, 0 if it can't tell.
func hostKHz() int {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	cpus, err := proc.CPUInfo()
	if err != nil || len(cpus) == 0 {
		return 0
	}
	return int(cpus[0].CPUMHz * 1000)
}

// initramfs is the path of the initramfs for a guest, which prepare makes. Guests
// that load the same modules share one.
func (k *Kit) initramfs(c Config) string {
	return filepath.Join(k.dir, "initramfs-"+strings.Join(wanted(c), "+"))
}

// prepare makes the initramfs for a guest unless it is there.
func (k *Kit) prepare(c Config) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	path := k.initramfs(c)
	if k.made[path] {
		return nil
	}
	if err := k.build(c, path); err != nil {
		return err
	}
	k.made[path] = true
	return nil
}

func (k *Kit) build(c Config, path string) error {
	files, err := guestModules(k.kernel, c)
	if err != nil {
		return err
	}
	return k.archive(path, files)
}

// archive makes an initramfs with modules, which are loaded in that order.
func (k *Kit) archive(path string, modules []string) error {
	records := []cpio.Record{cpio.Directory("modules", 0o755)}
	for i, file := range modules {
		content, err := readModule(file)
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		name = strings.TrimSuffix(name, ".ko") + ".ko"
		records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%02d-%s", i, name), content, 0o644))
	}
	init, err := os.ReadFile(k.binary)
	if err != nil {
		return fmt.Errorf("the guests' init: %w", err)
	}
	records = append(records, cpio.StaticFile("init", string(init), 0o755))
	if err := writeArchive(path, records); err != nil {
		return fmt.Errorf("make the guests' initramfs: %w", err)
	}
	return nil
}

// readModule returns a module as the kernel loads it. Compressed ones are unpacked
// here, which takes an emulated guest many times as long.
func readModule(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	r, err := kmodule.CompressionReader(f)
	if err != nil {
		return "", err
	}
	content, err := io.ReadAll(r)
	return string(content), err
}

// writeArchive writes an uncompressed cpio: unpacking a compressed one takes an
// emulated guest longer than QEMU takes to read it.
func writeArchive(path string, records []cpio.Record) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	w := cpio.Newc.Writer(f)
	err = cpio.WriteRecords(w, records)
	if err == nil {
		err = cpio.WriteTrailer(w)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path + ".part")
		return err
	}
	return os.Rename(path+".part", path)
}

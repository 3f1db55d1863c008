package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/bench"
	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/disk/disktest/hostfs"
)

// In a guest this program is the only one.
const guestInit = 1

func TestMain(m *testing.M) {
	if os.Getpid() == guestInit {
		inGuest()
	}
	os.Exit(hostfs.Main(m))
}

// TestHipriOnAPolledDevice runs jobs in an emulated guest whose NVMe device has a
// queue for polling: the I/O is right, and the device interrupts nobody.
func TestHipriOnAPolledDevice(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the guest runs the host's kernel on an emulated x86 machine")
	}
	hostfs.RequireTool(t, "qemu-system-x86_64", "qemu-system-x86")
	kernels, _ := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if len(kernels) == 0 {
		t.Fatal("no kernel for the guest in /boot (apt install linux-image-cloud-amd64)")
	}
	dir := t.TempDir()
	console, device := filepath.Join(dir, "console"), filepath.Join(dir, "device")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, 64<<20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512",
		"-kernel", kernels[len(kernels)-1], "-initrd", guestArchive(t, dir), "-serial", "file:"+console,
		"-append", "console=ttyS0 quiet panic=-1 tsc=reliable nvme.poll_queues=1 TMPDIR=/",
		"-drive", "if=none,id=d0,format=raw,cache=unsafe,file="+device, "-device", "nvme,serial=polled,drive=d0")
	out, err := cmd.CombinedOutput()
	text, _ := os.ReadFile(console)
	if err != nil || !strings.Contains(string(text), "guest: done\r") {
		t.Fatalf("%v\n%s%s", err, out, text)
	}
	t.Logf("%s", text)
}

// guestArchive is an initramfs of this package's tests alone.
func guestArchive(t *testing.T, dir string) string {
	t.Helper()
	program, archive := filepath.Join(dir, "init"), filepath.Join(dir, "initramfs")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	w := cpio.Newc.Writer(f)
	records := []cpio.Record{cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), cpio.StaticFile("init", string(content), 0o755)}
	if err := errors.Join(cpio.WriteRecords(w, records), cpio.WriteTrailer(w), f.Close()); err != nil {
		t.Fatal(err)
	}
	return archive
}

// inGuest is what the guest does; it does not return.
func inGuest() {
	err := errors.Join(
		unix.Mount("dev", "/dev", "devtmpfs", 0, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		unix.Mount("sys", "/sys", "sysfs", 0, ""))
	if err == nil {
		err = guestJobs()
	}
	if err != nil {
		fmt.Printf("guest: %v\n", err)
	} else {
		fmt.Println("guest: done")
	}
	time.Sleep(100 * time.Millisecond) // the console is slower than the end
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func guestJobs() error {
	polls, err := os.ReadFile("/sys/block/nvme0n1/queue/io_poll")
	if err != nil || strings.TrimSpace(string(polls)) != "1" {
		return fmt.Errorf("the guest's device has no queue for polling: io_poll %q, %w", polls, err)
	}
	plain, err := guestJob("--rw=randread", "--ioengine=io_uring", "--iodepth=4")
	if err != nil {
		return err
	}
	for _, more := range [][]string{
		{"--rw=randwrite", "--ioengine=io_uring", "--iodepth=4", "--verify=crc32c", "--hipri"},
		{"--rw=randread", "--ioengine=io_uring", "--iodepth=4", "--verify=crc32c", "--hipri"},
		{"--rw=randrw", "--ioengine=io_uring", "--iodepth=4", "--hipri", "--rate_iops=2000", "--io_submit_mode=offload"},
		{"--rw=randread", "--ioengine=io_uring", "--hipri", "--numjobs=3"},
	} {
		interrupts, err := guestJob(more...)
		if err != nil {
			return err
		}
		fmt.Printf("guest: %v: %d interrupts, %d without hipri\n", more, interrupts, plain)
		if interrupts > plain/10 {
			return fmt.Errorf("%v: %d interrupts, where 128 reads without hipri made %d", more, interrupts, plain)
		}
	}
	interrupts, err := guestJob("--rw=randwrite", "--ioengine=pvsync2", "--hipri", "--verify=crc32c")
	fmt.Printf("guest: pvsync2: %d interrupts\n", interrupts) // a flag for the kernel, which may ignore it
	return err
}

// guestJob runs one job and returns how often the device interrupted meanwhile.
func guestJob(more ...string) (interrupts int, err error) {
	args := append([]string{"--name=j", "--filename=/dev/nvme0n1", "--size=512k", "--bs=4k", "--direct=1"}, more...)
	before, err := deviceInterrupts()
	if err != nil {
		return 0, err
	}
	r, err := bench.Run(context.Background(), &bench.Request{Args: args, Open: openFile, Version: "guest"})
	if err != nil {
		return 0, err
	}
	after, err := deviceInterrupts()
	if err = errors.Join(err, r.Failed()); err != nil {
		return 0, fmt.Errorf("%v: %w", more, err)
	}
	ios := uint64(0)
	for _, j := range r.Jobs {
		ios += j.Dirs[jobfile.Read].IOs + j.Dirs[jobfile.Write].IOs
	}
	if ios < 128 || len(r.Notes) > 0 && slices.Contains(more, "--hipri") {
		return 0, fmt.Errorf("%v: %d I/Os, notes %q", more, ios, notesOf(r))
	}
	return after - before, nil
}

// deviceInterrupts counts those of the device's queues for I/O.
func deviceInterrupts() (sum int, err error) {
	text, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || !strings.HasPrefix(fields[len(fields)-1], "nvme0q") || strings.HasSuffix(line, "nvme0q0\n") {
			continue
		}
		for _, f := range fields[1:] {
			n, err := strconv.Atoi(f)
			if err != nil {
				break
			}
			sum += n
		}
	}
	return sum, nil
}

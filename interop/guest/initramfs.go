package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// wanted are the modules the guest needs, unless the kernel has them built in.
var wanted = []string{"virtio_pci", "virtio_console", "virtio_net", "crc32c_generic", "ext4", "nbd"}

// Kit is a kernel and an initramfs to boot guests from.
type Kit struct {
	kernel, initrd string
}

// NewKit makes an initramfs in dir with the agent, the modules it needs and the
// named programs of the host with their libraries.
func NewKit(ctx context.Context, dir string, programs ...string) (*Kit, error) {
	if err := peer.Need(append([]string{"qemu-system-x86_64"}, programs...)...); err != nil {
		return nil, err
	}
	kernel, modules, err := findKernel()
	if err != nil {
		return nil, err
	}
	init, err := peer.Build(ctx, "./interop/guest/init", dir)
	if err != nil {
		return nil, err
	}
	a := archive{records: map[string]cpio.Record{}}
	a.add("init", init)
	for i, file := range modules {
		a.add(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), file)
	}
	for _, program := range programs {
		a.addProgram(program)
	}
	k := &Kit{kernel: kernel, initrd: filepath.Join(dir, "initramfs")}
	if err := a.write(k.initrd); err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	return k, nil
}

// findKernel returns the newest installed kernel that has nbd, and the files of
// the modules to load, in order.
func findKernel() (string, []string, error) {
	kernels, _ := filepath.Glob("/boot/vmlinuz-*")
	slices.Sort(kernels)
	slices.Reverse(kernels)
	var last error
	for _, kernel := range kernels {
		dir := filepath.Join("/lib/modules", strings.TrimPrefix(kernel, "/boot/vmlinuz-"))
		modules, err := moduleFiles(dir)
		if err == nil {
			return kernel, modules, nil
		}
		last = err
	}
	return "", nil, errors.Join(errors.New("no kernel for the guest; run: apt-get install linux-image-cloud-amd64"), last)
}

// moduleFiles resolves the wanted modules of the kernel in dir with what they
// depend on, in the order in which they load.
func moduleFiles(dir string) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{} // module name: itself and what it needs, itself first
	for line := range strings.Lines(string(dep)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[moduleName(file)] = append([]string{file}, strings.Fields(rest)...)
	}
	var files []string
	for _, name := range wanted {
		list, ok := needs[name]
		if !ok {
			if !bytes.Contains(builtin, []byte("/"+name+".ko")) {
				return nil, fmt.Errorf("%s has no module %s", dir, name)
			}
			continue
		}
		for _, file := range slices.Backward(list) {
			if path := filepath.Join(dir, file); !slices.Contains(files, path) {
				files = append(files, path)
			}
		}
	}
	return files, nil
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// archive collects the files of an initramfs; the first error is kept.
type archive struct {
	records map[string]cpio.Record
	err     error
}

func (a *archive) add(name, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.records[name] = cpio.StaticFile(name, string(content), 0o755)
}

// addProgram adds a program of the host at its own path, and its libraries.
func (a *archive) addProgram(name string) {
	path, err := exec.LookPath(name)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	a.add(strings.TrimPrefix(path, "/"), path)
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return // static
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				a.addLibrary(word)
			}
		}
	}
}

// addLibrary puts a library where the guest's loader looks: /lib, which the
// agent names in LD_LIBRARY_PATH, or for the loader itself its fixed place.
func (a *archive) addLibrary(path string) {
	name := "lib/" + filepath.Base(path)
	if strings.HasPrefix(filepath.Base(path), "ld-linux") {
		name = strings.TrimPrefix(path, "/")
	}
	a.add(name, path)
}

func (a *archive) write(file string) error {
	if a.err != nil {
		return a.err
	}
	var records []cpio.Record
	for _, dir := range []string{"dev", "proc", "sys", "tmp"} {
		records = append(records, cpio.Directory(dir, 0o755))
	}
	records = append(records, cpio.CharDev("dev/console", 0o600, 5, 1))
	for _, r := range a.records {
		records = append(records, r)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := cpio.Newc.Writer(f)
	err = cpio.WriteRecordsAndDirs(w, records)
	if err == nil {
		err = cpio.WriteTrailer(w)
	}
	return errors.Join(err, f.Close())
}

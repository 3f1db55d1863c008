package vm

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"github.com/u-root/u-root/pkg/kmodule"
)

// kernel is a kernel image and where its modules lie.
type kernel struct {
	path    string
	version string
	root    string // lib/modules/VERSION is below
}

const kernelAdvice = "run: apt-get install linux-image-cloud-amd64, or set guest.kernel"

// findKernel resolves Guest.Kernel: a path, or auto for the host's newest with
// modules.
func findKernel(path string) (kernel, error) {
	if path != "" && path != "auto" {
		return openKernel(path)
	}
	paths, _ := filepath.Glob("/boot/vmlinuz-*")
	slices.SortFunc(paths, func(a, b string) int { return compareVersions(b, a) })
	var failed error
	for _, path := range paths {
		k, err := openKernel(path)
		if err == nil {
			return k, nil
		}
		failed = cmp.Or(failed, err)
	}
	if failed != nil {
		return kernel{}, failed
	}
	return kernel{}, errors.New("no kernel for the guests in /boot: " + kernelAdvice)
}

func openKernel(path string) (kernel, error) {
	version, err := kernelVersion(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return kernel{}, fmt.Errorf("kernel %s is not readable: run as root, or chmod a+r it", path)
	case errors.Is(err, fs.ErrNotExist):
		return kernel{}, fmt.Errorf("kernel %s does not exist: %s", path, kernelAdvice)
	case err != nil:
		return kernel{}, fmt.Errorf("kernel %s: %w: %s", path, err, kernelAdvice)
	}
	// Beside it: as in an unpacked package, boot/vmlinuz-V and lib/modules/V.
	for _, root := range []string{"/", filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if _, err := os.Stat(filepath.Join(root, "lib/modules", version, "modules.dep")); err == nil {
			return kernel{path: path, version: version, root: root}, nil
		}
	}
	return kernel{}, fmt.Errorf("kernel %s has no modules: want /lib/modules/%s/modules.dep, or lib/modules/%s beside the kernel: %s", path, version, version, kernelAdvice)
}

// kernelVersion reads the version out of the x86 boot header, see the kernel's
// Documentation/arch/x86/boot.rst. A file's name is no proof of it.
func kernelVersion(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, 32<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	return bzImageVersion(head[:n])
}

var versionForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]*$`)

func bzImageVersion(head []byte) (string, error) {
	const magic, pointer, base = 0x202, 0x20e, 0x200
	if len(head) < pointer+2 || string(head[magic:magic+4]) != "HdrS" {
		return "", errors.New("not an x86 Linux kernel (bzImage)")
	}
	at := base + int(binary.LittleEndian.Uint16(head[pointer:]))
	if at >= len(head) {
		return "", errors.New("the boot header names no version")
	}
	text, _, _ := bytes.Cut(head[at:], []byte{0})
	version, _, _ := strings.Cut(string(text), " ")
	if !versionForm.MatchString(version) { // it becomes part of a path
		return "", errors.New("the boot header names no version")
	}
	return version, nil
}

// compareVersions orders names by their numbers: 6.1.0-9 is older than 6.1.0-56.
func compareVersions(a, b string) int {
	fields := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	}
	return slices.CompareFunc(fields(a), fields(b), func(x, y string) int {
		nx, errX := strconv.Atoi(x)
		ny, errY := strconv.Atoi(y)
		if errX == nil && errY == nil {
			return cmp.Compare(nx, ny)
		}
		return cmp.Compare(x, y)
	})
}

// load returns the files of the named modules and all they depend on in an order
// in which they load, and the names the kernel has neither as a module nor built
// in.
func (k kernel) load(names []string) (files, lacks []string, err error) {
	if err := k.checkDependencies(); err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	prober, err := kmodule.NewProber(kmodule.ProbeOpts{
		RootDir: k.root, KVer: k.version, IgnoreProcMods: true,
		DryRunCB: func(file string) { // called from several goroutines
			mu.Lock()
			defer mu.Unlock()
			files = append(files, file)
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("modules of kernel %s: %w", k.version, err)
	}
	for _, name := range names {
		if err := prober.Probe(name, ""); err != nil {
			lacks = append(lacks, name)
		}
	}
	return files, lacks, nil
}

// checkDependencies refuses a file that kmodule panics on.
func (k kernel) checkDependencies() error {
	file := filepath.Join(k.root, "lib/modules", k.version, "modules.dep")
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("modules of kernel %s: %w", k.version, err)
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if !strings.Contains(line, ":") {
			return fmt.Errorf("%s:%d: no colon: run depmod %s to make it anew", file, number, k.version)
		}
	}
	return nil
}

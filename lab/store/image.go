package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/diskurl"
)

// Image formats.
const (
	raw   = "raw"
	qcow2 = "qcow2"
	luks  = "luks"
)

// luksRoom is more than the header of an image that QEMU makes takes.
const luksRoom = 16 << 20

// format of the images of a set.
func (b *builder) format() string {
	if b.setup.Server == luks {
		return luks
	}
	return b.setup.Format
}

// preallocation of image files: the backing's, or the axis'.
func (b *builder) preallocation() string {
	kind, _ := kindOf(b.setup.Backing)
	if kind == "falloc" || kind == "full" {
		return kind
	}
	return b.setup.Preallocation
}

// wantsGolden: the disk begins as the golden one, and that is not empty.
func (b *builder) wantsGolden() bool {
	kind, _ := kindOf(b.setup.Backing)
	fresh := kind == "sparse" || kind == "falloc" || kind == "full"
	return b.s.o.FileSystem != "none" || b.s.o.Data > 0 && !fresh
}

// golden is the one of the set's host file system.
func (b *builder) golden(ctx context.Context) (string, error) {
	name := here
	if b.fs != nil {
		name = b.setup.HostFS
	}
	return b.s.goldenOn(ctx, name)
}

// file makes an image as a file.
func (b *builder) file(ctx context.Context, dir string, i int) (image, error) {
	m := image{path: filepath.Join(dir, nodeName(i)+"."+b.format()), format: b.format(), device: b.deviceBelow(dir)}
	var err error
	switch m.format {
	case raw:
		err = b.rawFile(ctx, m)
	case qcow2:
		err = b.qcow2File(ctx, m.path)
	case luks:
		if err = b.luksRaw(ctx, m.path); err == nil {
			m, err = b.luksImage(ctx, m)
		}
	default:
		err = fmt.Errorf("unknown format %q", m.format)
	}
	return m, err
}

func (b *builder) rawFile(ctx context.Context, m image) error {
	prealloc, how := b.preallocation(), fillData
	if prealloc == "full" {
		how = fillAll
		if b.wantsGolden() { // the copy writes everything
			prealloc = "falloc"
		}
	}
	err := diskurl.Create(ctx, rawURL(m.path), diskurl.CreateOptions{Size: b.s.o.Size, Preallocation: prealloc})
	if err != nil || !b.wantsGolden() {
		return err
	}
	return b.copyInto(ctx, m, how)
}

// copyInto copies the golden disk into a raw image.
func (b *builder) copyInto(ctx context.Context, m image, how fill) error {
	golden, err := b.golden(ctx)
	if err != nil {
		return err
	}
	return copyGolden(ctx, golden, rawURL(m.path), m.cacheForMaking(), how)
}

// cacheForMaking is how an image is written before the measurement: past the page
// cache, so that what is cached at the start does not depend on the backing.
func (m image) cacheForMaking() string {
	if m.block {
		return "none"
	}
	return cacheIn(filepath.Dir(m.path))
}

// cacheIn is none if the page cache can be bypassed in a folder, else writeback. It
// asks by a file without a name; where there are no such, ordinary file systems
// are, which can.
func cacheIn(dir string) string {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	if errors.Is(err, unix.EINVAL) {
		return "writeback"
	}
	return "none"
}

// qcow2Options of `qemu-img create -o`.
func (b *builder) qcow2Options() string {
	o := []string{"preallocation=" + b.preallocation()}
	if b.setup.ClusterSize > 0 {
		o = append(o, "cluster_size="+strconv.FormatInt(b.setup.ClusterSize, 10))
	}
	if b.setup.ExtendedL2 {
		o = append(o, "extended_l2=on")
	}
	return strings.Join(o, ",")
}

func (b *builder) qcow2File(ctx context.Context, path string) error {
	_, err := b.s.run(ctx, command{name: "qemu-img", args: []string{
		"create", "-q", "-f", qcow2, "-o", b.qcow2Options(), path, strconv.FormatInt(b.s.o.Size, 10)}})
	if err != nil || !b.wantsGolden() {
		return err
	}
	golden, err := b.golden(ctx)
	if err != nil {
		return err
	}
	_, err = b.s.run(ctx, command{name: "qemu-img", args: []string{"convert", "-q", "-n", "-W", "--target-is-zero",
		"-T", cacheIn(filepath.Dir(golden)), "-t", cacheIn(filepath.Dir(path)), "-f", raw, "-O", qcow2, golden, path}})
	return err
}

// overlay makes a qcow2 image over the golden disk, which has to be there even if
// it is empty.
func (b *builder) overlay(ctx context.Context, i int) (image, error) {
	m := image{path: filepath.Join(b.dir, nodeName(i)+".qcow2"), format: qcow2, device: b.deviceBelow(b.dir)}
	var err error
	if m.backing, err = b.golden(ctx); err != nil {
		return m, err
	}
	_, err = b.s.run(ctx, command{name: "qemu-img", args: []string{
		"create", "-q", "-f", qcow2, "-b", m.backing, "-F", raw, "-o", b.qcow2Options(), m.path}})
	return m, err
}

// reflink makes a file that shares all blocks with the golden disk, or with a
// golden qcow2 image of the set's options.
func (b *builder) reflink(ctx context.Context, i int) (image, error) {
	m := image{path: filepath.Join(b.dir, nodeName(i)+"."+b.format()), format: b.format(), device: b.deviceBelow(b.dir)}
	from, err := b.golden(ctx)
	if err == nil && m.format == qcow2 {
		from = filepath.Join(b.fs.dir, fmt.Sprintf("golden-%d-%t.qcow2", b.setup.ClusterSize, b.setup.ExtendedL2))
		_, err = b.s.once(ctx, from, func(c *scope) error {
			if err := c.record(entry{Kind: kindPath, Path: from}); err != nil {
				return err
			}
			return b.qcow2File(ctx, from)
		})
	}
	if err != nil {
		return m, err
	}
	return m, cloneFile(from, m.path)
}

func cloneFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		err = fmt.Errorf("share the blocks of %s with %s: %w", from, to, err)
	} else {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

// luksTemplate is an empty LUKS image, whose header all images of the store begin
// with: QEMU takes two seconds of CPU to make one. It returns its key file too.
func (b *builder) luksTemplate(ctx context.Context) (path, key string, err error) {
	path, key = filepath.Join(b.s.o.Dir, "golden.luks"), filepath.Join(b.s.o.Dir, "golden.key")
	path, err = b.s.once(ctx, path, func(c *scope) error {
		for _, p := range []string{key, path} {
			if err := c.record(entry{Kind: kindPath, Path: p}); err != nil {
				return err
			}
		}
		var secret [32]byte
		if _, err := rand.Read(secret[:]); err != nil {
			return err
		}
		if err := os.WriteFile(key, []byte(hex.EncodeToString(secret[:])), 0o600); err != nil {
			return err
		}
		return b.createLUKS(ctx, key, path)
	})
	return path, key, err
}

// createLUKS makes an empty image. QEMU measures how fast the key can be derived, and
// gives up where a busy host hardly lets it run.
func (b *builder) createLUKS(ctx context.Context, key, path string) (err error) {
	const tries = 10
	for range tries {
		_, err = b.s.run(ctx, command{name: "qemu-img", args: []string{
			"create", "-q", "-f", luks, "--object", secretObject(key), "-o", "key-secret=key,iter-time=10", path, strconv.FormatInt(b.s.o.Size, 10)}})
		if err == nil || !strings.Contains(err.Error(), "accurate CPU usage") {
			break
		}
	}
	return err
}

// luksRaw makes the file that a LUKS image lies in, or whose loop device it does.
func (b *builder) luksRaw(ctx context.Context, path string) error {
	template, _, err := b.luksTemplate(ctx)
	if err != nil {
		return err
	}
	st, err := os.Stat(template)
	if err != nil {
		return err
	}
	return diskurl.Create(ctx, rawURL(path), diskurl.CreateOptions{Size: st.Size(), Preallocation: b.preallocation()})
}

// luksImage makes a LUKS image in a file or on a block device. Its free space reads
// as noise, so all of the golden disk is written, zeros too.
func (b *builder) luksImage(ctx context.Context, m image) (image, error) {
	template, key, err := b.luksTemplate(ctx)
	if err != nil {
		return m, err
	}
	m.format, m.keyFile = luks, key
	if err := copyGolden(ctx, template, rawURL(m.path), m.cacheForMaking(), fillData); err != nil {
		return m, err
	}
	golden, err := b.golden(ctx)
	if err != nil {
		return m, err
	}
	_, err = b.s.run(ctx, command{name: "qemu-img", args: []string{
		"convert", "-q", "-n", "-W", "-T", cacheIn(filepath.Dir(golden)), "-t", m.cacheForMaking(), "-S", "0", "--object", secretObject(key),
		"-f", raw, "--target-image-opts", golden, m.imageOptions()}})
	return m, err
}

// secretObject is QEMU's object of a key file, called key.
func secretObject(file string) string { return "secret,id=key,format=raw,file=" + quote(file) }

// imageOptions name a LUKS image for --image-opts; the secret is called key.
func (m image) imageOptions() string {
	return "driver=luks,key-secret=key," + m.below("file.")
}

// protocol is QEMU's driver for the file or device itself.
func (m image) protocol() string {
	if m.block {
		return "host_device"
	}
	return "file"
}

// quote is for QEMU's options, where a comma in a value is written twice.
func quote(s string) string { return strings.ReplaceAll(s, ",", ",,") }

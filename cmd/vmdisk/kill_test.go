package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killSize is the image's; it is not a multiple of 4 KiB.
const killSize = 24<<20 + 512

// A killMode is one way of copying a file to another, with whatever stands between.
type killMode struct {
	name string
	// flags of every copy.
	flags []string
	// from and to turn the files into what is copied; nil: the files themselves.
	from, to func(r *killRig, file string) string
	// present: the target file is there before.
	present bool
	// fs is a file system to work in.
	fs string
}

func killModes() []killMode {
	served := func(r *killRig, file string) string { return r.serve(file) }
	return []killMode{
		{name: "file"},
		{name: "file without clones", flags: []string{"--no-clone"}},
		{name: "file allocated", flags: []string{"--allocate"}},
		{name: "file past the page cache", flags: []string{"--cache", "none", "--src-cache", "none"}},
		{name: "file present", present: true},
		{name: "reflink", fs: "xfs"},
		{name: "file to nbd", to: served, present: true},
		{name: "nbd to file", from: served},
		{name: "nbd to nbd", from: served, to: served, present: true},
		{name: "to a block device", to: (*killRig).loop, present: true},
		{name: "to imageio", to: (*killRig).ticket, present: true},
		{name: "imageio to file", from: (*killRig).ticket},
	}
}

// TestKilledCopies kills a copy of each mode at many points of its life, changes source and target
// meanwhile where no time stamp shows it, and resumes it, by two at once now and then: in the end
// the image is equal, or the refusal clear and a copy begun anew equal. What has its final
// name is equal at any time. VMDISK_KILLS is the number of points of each mode.
func TestKilledCopies(t *testing.T) {
	t.Parallel()
	points := 3
	if n, err := strconv.Atoi(os.Getenv("VMDISK_KILLS")); err == nil {
		points = n
	}
	for _, m := range killModes() {
		t.Run(m.name, func(t *testing.T) {
			r := newKillRig(t, m)
			r.took = r.uninterrupted()
			for i := range points {
				r.point(i, r.took*time.Duration(i)/time.Duration(points))
			}
			t.Logf("%d points of %v: %d killed, %d resumed in the middle, %d mended, %d found complete, %d refused and begun anew", points, r.took, r.killed, r.resumed, r.mended, r.complete, r.refused)
		})
	}
}

// killRig is one mode at work.
type killRig struct {
	t                                          *testing.T
	killMode                                   killMode
	dir, src, dst                              string
	args                                       []string      // source and target
	took                                       time.Duration // of a copy
	rnd                                        *rand.Rand
	killed, resumed, mended, complete, refused int
}

func newKillRig(t *testing.T, m killMode) *killRig {
	r := &killRig{t: t, killMode: m, dir: t.TempDir(), rnd: rand.New(rand.NewPCG(9, uint64(len(m.name))))}
	if m.fs != "" {
		r.dir = r.mount(m.fs)
	}
	r.src, r.dst = filepath.Join(r.dir, "src.raw"), filepath.Join(r.dir, "dst.raw")
	image := make([]byte, killSize)
	for off := 0; off < killSize; off += 2 << 20 {
		for i := range min(1<<20, killSize-off) {
			image[off+i] = byte(r.rnd.Uint32())
		}
	}
	r.write(r.src, image)
	if m.present {
		r.write(r.dst, bytes.Repeat([]byte{0xa5}, killSize))
	}
	r.args = []string{r.src, r.dst}
	if m.from != nil {
		r.args[0] = m.from(r, r.src)
	}
	if m.to != nil {
		r.args[1] = m.to(r, r.dst)
	}
	return r
}

func (r *killRig) write(path string, p []byte) {
	r.t.Helper()
	if err := os.WriteFile(path, p, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *killRig) command(resume bool) (*exec.Cmd, *bytes.Buffer, *bytes.Buffer) {
	args := append([]string{"copy", "--checkpoint", "5ms"}, r.killMode.flags...)
	if resume {
		args = append(args, "--resume")
	}
	c := exec.Command("vmdisk", append(args, r.args...)...)
	c.Dir = r.dir
	var out, err bytes.Buffer
	c.Stdout, c.Stderr = &out, &err
	return c, &out, &err
}

// uninterrupted is how long a copy takes.
func (r *killRig) uninterrupted() time.Duration {
	start := time.Now()
	r.anew()
	took := time.Since(start)
	r.mustBeEqual("uninterrupted")
	return took
}

// anew copies without --resume.
func (r *killRig) anew() {
	r.t.Helper()
	c, _, stderr := r.command(false)
	if err := c.Run(); err != nil {
		r.t.Fatalf("copy anew: %v: %s", err, stderr)
	}
}

// point is one life of a copy: begun, killed after a while, resumed.
func (r *killRig) point(i int, after time.Duration) {
	r.t.Helper()
	what := fmt.Sprintf("point %d (killed after %v)", i, after)
	if !r.killMode.present {
		r.remove(r.dst)
	}
	c, _, _ := r.command(r.killMode.to != nil) // a server's has a journal only so
	if err := c.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.kill(c, after)
	if _, err := os.Stat(r.dst); err == nil && !r.killMode.present {
		r.mustBeEqual(what + ": what has the final name")
	}
	if i%2 == 1 {
		r.scribble(r.src)
	}
	if left := r.partial(); i%4 == 2 && left != "" {
		r.scribble(left)
	}
	r.finish(what, i%5 == 4)
	r.mustBeEqual(what)
	for _, left := range []string{".partial", ".journal"} {
		if _, err := os.Stat(r.dst + left); !errors.Is(err, fs.ErrNotExist) {
			r.t.Fatalf("%s: %s remains: %v", what, left, err)
		}
	}
}

// kill ends a copy after a while; the point is a moment, not a condition. One that ended
// before tells how long a copy takes when the machine has less to do.
func (r *killRig) kill(c *exec.Cmd, after time.Duration) {
	start, ended := time.Now(), make(chan error)
	go func() { ended <- c.Wait() }()
	select {
	case <-ended:
		r.took = min(r.took, time.Since(start)*9/10)
		return
	case <-time.After(after):
	}
	_ = c.Process.Kill()
	if <-ended != nil {
		r.killed++
	}
}

// partial is the file that the killed copy was writing to, "" if there is none or it may be complete.
func (r *killRig) partial() string {
	path := r.dst
	if !r.killMode.present {
		path += ".partial"
	}
	if _, err := os.Stat(path); err != nil || strings.HasPrefix(r.args[1], "/dev/") {
		return ""
	}
	return path
}

// scribble changes a block of a file, and its time stamp back.
func (r *killRig) scribble(path string) {
	r.t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if st.Size() > 4096 {
		p := bytes.Repeat([]byte{byte(1 + r.rnd.IntN(255))}, 1000)
		_, err = f.WriteAt(p, r.rnd.Int64N(st.Size()-4096))
	}
	if err = errors.Join(err, f.Close(), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
		r.t.Fatal(err)
	}
}

// finish resumes the copy, by two at once if so told, until it is complete or refused.
func (r *killRig) finish(what string, both bool) {
	r.t.Helper()
	other := func() {}
	if both {
		c, _, stderr := r.command(true)
		if err := c.Start(); err != nil {
			r.t.Fatal(err)
		}
		other = func() {
			if c.Wait() != nil {
				r.mustRefuse(what+": second", stderr)
			}
		}
	}
	c, stdout, stderr := r.command(true)
	err := c.Run()
	other()
	if err == nil {
		r.count(stdout.String())
		return
	}
	r.mustRefuse(what, stderr)
	if !both { // else the other one may have done it; if not, this does not harm
		r.refused++
	}
	r.anew()
}

func (r *killRig) count(text string) {
	for words, n := range map[string]*int{"resumed at": &r.resumed, "had changed": &r.mended, "is complete": &r.complete} {
		if strings.Contains(text, words) {
			*n++
		}
	}
}

// mustRefuse checks that a refusal is one clear line.
func (r *killRig) mustRefuse(what string, stderr *bytes.Buffer) {
	r.t.Helper()
	last := ""
	for line := range strings.Lines(stderr.String()) {
		if !strings.Contains(line, "starting ") {
			last += line
		}
	}
	known := false
	for _, words := range []string{"in use", "meanwhile", "no such file", "differs from the source", "copy without --resume"} {
		known = known || strings.Contains(last, words)
	}
	if !known || strings.Count(last, "\n") != 1 {
		r.t.Fatalf("%s: refused by %q", what, stderr)
	}
}

func (r *killRig) mustBeEqual(what string) {
	r.t.Helper()
	src, err1 := os.ReadFile(r.src)
	dst, err2 := os.ReadFile(r.dst)
	if err := errors.Join(err1, err2); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	if len(src) != len(dst) {
		r.t.Fatalf("%s: %d bytes instead of %d", what, len(dst), len(src))
	}
	for i := range src {
		if src[i] != dst[i] {
			r.t.Fatalf("%s: the images differ at offset %d", what, i)
		}
	}
}

func (r *killRig) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.t.Fatal(err)
	}
}

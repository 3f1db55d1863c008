package interop

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// exportInfo is the part of `nbdinfo --json` that the tests look at.
type exportInfo struct {
	Protocol   string `json:"protocol"`
	TLS        bool   `json:"TLS"`
	Structured bool   `json:"structured"`
	Exports    []struct {
		Name      string   `json:"export-name"`
		Size      int64    `json:"export-size"`
		Contexts  []string `json:"contexts"`
		ReadOnly  bool     `json:"is_read_only"`
		Cache     bool     `json:"can_cache"`
		DF        bool     `json:"can_df"`
		FastZero  bool     `json:"can_fast_zero"`
		Flush     bool     `json:"can_flush"`
		FUA       bool     `json:"can_fua"`
		MultiConn bool     `json:"can_multi_conn"`
		Trim      bool     `json:"can_trim"`
		Zero      bool     `json:"can_zero"`
		Min       int64    `json:"block_size_minimum"`
		Preferred int64    `json:"block_size_preferred"`
		Max       int64    `json:"block_size_maximum"`
	} `json:"exports"`
}

func TestNbdinfo(t *testing.T) {
	t.Parallel()
	image := holey(t, 8<<20, 1)
	s := serve(t, "raw:"+image)
	var info exportInfo
	unmarshal(t, run(t, "nbdinfo", "--json", s.URI()), &info)
	if info.Protocol != "newstyle-fixed" || !info.Structured || info.TLS || len(info.Exports) != 1 {
		t.Fatalf("nbdinfo sees %+v", info)
	}
	e := info.Exports[0]
	if e.Size != 8<<20 || e.ReadOnly || !e.Cache || !e.DF || !e.FastZero || !e.Flush || !e.FUA || !e.MultiConn || !e.Trim || !e.Zero {
		t.Errorf("nbdinfo sees %+v", e)
	}
	if e.Min < 1 || e.Min > 64<<10 || e.Preferred < max(e.Min, 512) || e.Max < 32<<20 {
		t.Errorf("block sizes %d, %d, %d", e.Min, e.Preferred, e.Max)
	}
	if strings.Join(e.Contexts, " ") != "base:allocation" {
		t.Errorf("contexts %q", e.Contexts)
	}
	if got := strings.TrimSpace(run(t, "nbdinfo", "--size", s.URI())); got != fmt.Sprint(8<<20) {
		t.Errorf("size %s", got)
	}
	run(t, "nbdinfo", "--can", "fast-zero", s.URI())
	fail(t, 2, "nbdinfo", "--is", "read-only", s.URI())

	var extents []struct {
		Offset, Length int64
		Type           int
	}
	unmarshal(t, run(t, "nbdinfo", "--map", "--json", s.URI()), &extents)
	for i, e := range extents {
		if want := 3 * (i % 2); e.Offset != int64(i)*piece || e.Length != piece || e.Type != want {
			t.Fatalf("extent %d is %+v, want type %d", i, e, want)
		}
	}
	if len(extents) != 8<<20/piece {
		t.Errorf("%d extents", len(extents))
	}
}

// TestNbdinfoList: several exports behind one address.
func TestNbdinfoList(t *testing.T) {
	t.Parallel()
	s := serve(t, "small=mem:1M", "big=mem:8T", "file=raw:"+holey(t, 3<<20, 1))
	var info exportInfo
	unmarshal(t, run(t, "nbdinfo", "--list", "--json", s.URI()), &info)
	got := map[string]int64{}
	for _, e := range info.Exports {
		got[e.Name] = e.Size
	}
	want := map[string]int64{"small": 1 << 20, "big": 8 << 40, "file": 3 << 20}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("nbdinfo --list sees %v, want %v", got, want)
	}
	for name, size := range want {
		if got := run(t, "nbdinfo", "--size", peer.UnixURI(s.Socket, name)); strings.TrimSpace(got) != fmt.Sprint(size) {
			t.Errorf("%s has %s bytes, want %d", name, got, size)
		}
	}
	fail(t, 1, "nbdinfo", "--size", peer.UnixURI(s.Socket, "nobody"))
}

// TestNbdcopy: to, from and between our servers.
func TestNbdcopy(t *testing.T) {
	t.Parallel()
	const size = 24<<20 + 512
	image := holey(t, size, 6)
	for _, flags := range [][]string{
		{"--flush"}, {"--synchronous"}, {"--allocated"}, {"--no-extents"}, {"-C", "1"}, {"--request-size=4096", "-R", "200"}, {"--request-size=33554432"},
	} {
		t.Run(strings.Join(flags, ","), func(t *testing.T) {
			t.Parallel()
			target := empty(t, size)
			from, to := serve(t, "--read-only", "raw:"+image), serve(t, "raw:"+target)
			nbdcopy := append([]string{"nbdcopy"}, flags...)
			run(t, append(nbdcopy, from.URI(), to.URI())...)
			out := filepath.Join(tempDir(t), "out")
			run(t, append(nbdcopy, to.URI(), out)...)
			sameFiles(t, image, out)
			run(t, append(nbdcopy, image, to.URI())...)
			stop(t, to)
			stop(t, from)
			sameFiles(t, image, target)
		})
	}
}

// TestSocketActivation: libnbd starts our server with a listening socket.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	image := holey(t, 4<<20, 7)
	if got := run(t, "nbdinfo", "--size", "--", "[", bin(t), "serve", "raw:"+image, "]"); strings.TrimSpace(got) != fmt.Sprint(4<<20) {
		t.Errorf("size %s", got)
	}
	target := empty(t, 4<<20)
	run(t, "nbdcopy", "--flush", "--", "[", bin(t), "serve", "--read-only", "raw:"+image, "]", "[", bin(t), "serve", "raw:"+target, "]")
	sameFiles(t, image, target)
}

// TestNbdsh runs the scripts of testdata/nbdsh, each against servers that it
// names in a comment: "# serve: NAME=ARGUMENTS". They speak to the server
// through libnbd's bindings, which can be told to send what is not allowed.
func TestNbdsh(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/nbdsh/*.py")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".py"), func(t *testing.T) {
			t.Parallel()
			runScript(t, script)
		})
	}
}

// python is the interpreter for which Debian's libnbd bindings are installed.
const python = "/usr/bin/python3"

func runScript(t *testing.T, script string) {
	if r, err := peer.Run(t.Context(), python, "-c", "import nbd"); err != nil {
		t.Fatalf("libnbd's Python bindings are missing; run: apt-get install python3-libnbd\n%s", r.Stderr)
	}
	argv := []string{python, script}
	for line := range bytes.Lines(readFile(t, script)) {
		if arg, ok := bytes.CutPrefix(line, []byte("# serve: ")); ok {
			name, args, _ := strings.Cut(strings.TrimSpace(string(arg)), "=")
			argv = append(argv, name+"="+serveScript(t, args).Socket)
		}
	}
	r, err := peer.Run(t.Context(), argv...)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Stdout)
	}
}

// serveScript starts a server with the arguments of a script; HOLEY is an image
// of 8 MiB, EMPTY a sparse one.
func serveScript(t *testing.T, args string) *peer.Server {
	t.Helper()
	args = os.Expand(args, func(name string) string {
		switch name {
		case "HOLEY":
			return "raw:" + holey(t, 8<<20, 8)
		case "EMPTY":
			return "raw:" + empty(t, 128<<20)
		}
		return ""
	})
	return serve(t, strings.Fields(args)...)
}

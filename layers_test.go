// Package vmdisk_test keeps the floors of the module: what may import what.
package vmdisk_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/vmdisk/vmdisk"

// A component is a folder with everything below it, and the number of its
// floor. Longest match wins. Imports go down, or stay inside the component.
var components = map[string]int{
	"interop":        100,
	"versus":         110, // runs the peers through interop/peer
	"cmd/vmdisk":     90,
	"tune":           80,
	"lab":            70,
	"bench":          60,
	"nbd/server":     50,
	"vhost/blk":      50,
	"imageio/server": 55, // serves tickets by nbd/server as well
	"diskcopy":       40,
	"diskurl":        30,
	"filter":         20,
	"driver":         20,
	"format":         20,
	"disk/disktest":  10,
	"disk":           0,
	"nbd/client":     -10,
	"vhost/frontend": -10,
	"imageio/client": -10,
	"imageio/batch":  -20,
	"imageio/pyjson": -20,
	"nbd":            -20,
	"vhost":          -20,
	"uring":          -20,
	"report":         -20,
	"suggest":        -20,
	"child":          -20,

	"internal/confine":  -20,
	"internal/unixsock": -20,
}

// leaves do not know the disk contract.
var leaves = []string{"nbd", "nbd/client", "vhost", "vhost/frontend", "imageio/client", "imageio/batch", "imageio/pyjson", "uring", "report", "suggest", "child", "internal/confine", "internal/unixsock"}

// singletons are the components whose every folder is one of its own: a driver
// does not know another driver, nor a filter another filter.
var singletons = []string{"driver", "filter", "format"}

// Who may import a component, tests aside. Nothing else may.
var importers = map[string][]string{
	"driver":        {"diskurl"},
	"filter":        {"diskurl"},
	"format":        {"diskurl"},
	"diskurl":       {"cmd/vmdisk", "tune", "lab"},
	"disk/disktest": {"interop", "versus"},
	"interop":       {},
	"versus":        {},
}

var unsafeIn = []string{"uring", "vhost"}

var badNames = []string{"util", "utils", "common", "helper", "helpers", "misc"}

// pkg is what `go list -json` tells of a package, the parts that matter here.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// componentOf returns the component of a path inside the module, "" if none.
func componentOf(rel string) string {
	for p := rel; p != "."; p = path.Dir(p) {
		if _, ok := components[p]; ok {
			return p
		}
	}
	return ""
}

func within(rel, folder string) bool { return rel == folder || strings.HasPrefix(rel, folder+"/") }

// check returns every broken rule, one line each.
func check(pkgs []pkg) []string {
	var broken []string
	for _, p := range pkgs {
		rel, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours {
			continue // the root itself: this test
		}
		broken = append(broken, checkName(rel)...)
		if !slices.ContainsFunc(unsafeIn, func(f string) bool { return within(rel, f) }) {
			for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if imp == "unsafe" {
					broken = append(broken, rel+" imports unsafe: it lives in "+strings.Join(unsafeIn, " and ")+" alone")
				}
			}
		}
		for _, imp := range p.Imports {
			if why := checkImport(rel, imp); why != "" {
				broken = append(broken, rel+" imports "+imp+": "+why)
			}
		}
	}
	return broken
}

func checkName(rel string) []string {
	var broken []string
	for _, part := range strings.Split(rel, "/") {
		if slices.Contains(badNames, part) {
			broken = append(broken, rel+": a package is named for what it does, not "+part)
		}
	}
	if componentOf(rel) == "" {
		broken = append(broken, rel+": on no floor; add it to components, and to docs/design.md")
	}
	return broken
}

// checkImport returns why package from (a path inside the module) may not
// import imp, or "".
func checkImport(from, imp string) string {
	to, ours := strings.CutPrefix(imp, module+"/")
	if !ours {
		first, _, _ := strings.Cut(imp, "/")
		if from == "disk" && strings.Contains(first, ".") {
			return "the contract imports the standard library only"
		}
		return ""
	}
	cf, ct := componentOf(from), componentOf(to)
	switch {
	case cf == "" || ct == "":
		return "" // checkName says so
	case slices.Contains(leaves, cf) && ct == "disk":
		return "a leaf does not know disk"
	case cf == ct && slices.Contains(singletons, cf):
		if folder(cf, from) != folder(ct, to) {
			return "one " + cf + " does not know another"
		}
	case cf == ct:
	case components[ct] >= components[cf]:
		return fmt.Sprintf("floor %d is not below %d", components[ct], components[cf])
	default:
		if only, ok := importers[ct]; ok && !slices.Contains(only, cf) && components[cf] < 100 {
			return "only " + strings.Join(only, ", ") + " may"
		}
	}
	return ""
}

// folder returns the part of rel that names one driver or filter.
func folder(component, rel string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(rel, component+"/"), "/")
	return name
}

func TestLayers(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 3 {
		t.Fatalf("go list found only %d packages: not the whole module", len(pkgs))
	}
	for _, b := range check(pkgs) {
		t.Error(b)
	}
}

// TestLayersCanFail: each rule, broken by a made-up package, is reported.
func TestLayersCanFail(t *testing.T) {
	for _, c := range []struct{ from, imp, want string }{
		{"disk", module + "/driver/file", "floor 20 is not below 0"},
		{"disk", "golang.org/x/sys/unix", "standard library only"},
		{"nbd", module + "/disk", "leaf does not know disk"},
		{"report", module + "/disk", "leaf does not know disk"},
		{"nbd/client", module + "/disk", "leaf does not know disk"},
		{"nbd", module + "/nbd/client", "is not below"},
		{"nbd/server", module + "/driver/file", "only diskurl may"},
		{"diskcopy", module + "/filter/delay", "only diskurl may"},
		{"cmd/vmdisk", module + "/driver/file", "only diskurl may"},
		{"lab", module + "/format/qcow2", "only diskurl may"},
		{"format/qcow2", module + "/driver/file", "is not below"},
		{"format/qcow2", module + "/diskurl", "is not below"},
		{"format/qcow2", module + "/format/raw", "one format does not know another"},
		{"diskcopy", module + "/diskurl", "only cmd/vmdisk, tune, lab may"},
		{"nbd/server", module + "/imageio/server", "is not below"},
		{"driver/nbd", module + "/driver/file", "one driver does not know another"},
		{"filter/cow", module + "/filter/stats", "one filter does not know another"},
		{"driver/file", module + "/disk/disktest", "only interop, versus may"},
		{"lab", module + "/interop", "is not below"},
		{"disk", "unsafe", "unsafe"},
		{"driver/util", "io", "named for what it does"},
		{"elsewhere", "io", "on no floor"},
	} {
		got := check([]pkg{{ImportPath: module + "/" + c.from, Imports: []string{c.imp}}})
		if len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("%s importing %s: reported %q, want one line with %q", c.from, c.imp, got, c.want)
		}
	}
}

// TestLayersAllow: what the design wants is let through.
func TestLayersAllow(t *testing.T) {
	for _, c := range []struct{ from, imp string }{
		{"diskurl", module + "/driver/file"},
		{"diskurl", module + "/filter/delay"},
		{"diskurl", module + "/format/qcow2"},
		{"driver/nbd", module + "/nbd/client"},
		{"driver/file", module + "/uring"},
		{"driver/qcow2/table", module + "/disk"},
		{"driver/qcow2", module + "/driver/qcow2/table"},
		{"nbd/client", module + "/nbd"},
		{"nbd/server", module + "/disk"},
		{"bench", module + "/bench/jobfile"},
		{"interop/guest", module + "/nbd/client"},
		{"versus", module + "/diskurl"},
		{"uring", "unsafe"},
		{"report", "gonum.org/v1/plot"},
	} {
		if got := check([]pkg{{ImportPath: module + "/" + c.from, Imports: []string{c.imp}}}); len(got) != 0 {
			t.Errorf("%s importing %s: %q", c.from, c.imp, got)
		}
	}
}

// rowOf is the kind of row that a folder of the storage floor has in diskurl.
var rowOf = map[string]string{"driver": "protocol", "format": "format", "filter": "filter"}

// TestRows: each driver, format and filter is imported by the file of its row alone, which a
// build tag leaves out. driver/file is in every build.
func TestRows(t *testing.T) {
	files, err := filepath.Glob("diskurl/*.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files in diskurl: %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			rel, _ := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
			kind, what, _ := strings.Cut(rel, "/")
			if rowOf[kind] == "" || rel == "driver/file" {
				continue
			}
			tagged := len(f.Comments) > 0 && strings.HasPrefix(f.Comments[0].List[0].Text, "//go:build !without_"+what)
			if base := path.Base(name); !strings.HasPrefix(base, rowOf[kind]+"_") || !tagged {
				t.Errorf("%s imports %s: that is for %s_%s.go, which begins with //go:build !without_%s", name, rel, rowOf[kind], what, what)
			}
		}
	}
}

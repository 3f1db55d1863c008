package diskurl

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNames: each row of this program has its name in the list, so that a build without
// it still knows what it lacks.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{kindProtocol, kindFormat, kindFilter} {
		for _, name := range allOf(k) {
			if names[name] != k && !strings.HasPrefix(name, "toy") {
				t.Errorf("%s is not in names.go", name)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("two rows of one name are accepted")
		}
	}()
	addFormat(&format{name: "delay"})
}

// without are the tags of a build that lacks a protocol, two formats and a filter; leftout_test.go is of it.
const without = "without_null,without_nbd,without_imageio,without_qcow2,without_delay"

// TestBuildWithout: rows can be left out, and the program still builds.
func TestBuildWithout(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program twice")
	}
	t.Parallel()
	for _, args := range [][]string{
		{"test", "-count=1", "-tags", without, "-run", "^TestLeftOut$", "-v", "."},
		{"build", "-tags", without, "./../cmd/vmdisk"},
	} {
		cmd := exec.Command("go", args...)
		if args[0] == "build" {
			cmd.Args = append(cmd.Args[:2], append([]string{"-o", t.TempDir()}, cmd.Args[2:]...)...)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || args[0] == "test" && !strings.Contains(string(out), "--- PASS: TestLeftOut") {
			t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

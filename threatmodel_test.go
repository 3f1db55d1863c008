package vmdisk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A promise names its tests: `nbd/server.TestDrain`, or `cmd/vmdisk.TestScripts/copy`.
var namedTest = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([a-z-]+))?`")

// TestThreatModel: each promise of docs/threat-model.md names a test, and each test that is named is there.
func TestThreatModel(t *testing.T) {
	page, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	promises, broken := checkPromises(string(page), hasTest)
	for _, b := range broken {
		t.Error(b)
	}
	if promises < 30 {
		t.Errorf("%d promises: the page is not read as a list of them any more", promises)
	}
}

// checkPromises counts the promises of a page, and returns what is wrong with them.
func checkPromises(page string, has func(folder, name, script string) error) (promises int, broken []string) {
	_, list, _ := strings.Cut(page, "\n## Promises\n")
	list, _, _ = strings.Cut(list, "\n## ")
	for line := range strings.Lines(list) {
		tests := namedTest.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "- ") {
			promises++
			if len(tests) == 0 {
				broken = append(broken, "this promise names no test: "+line)
			}
		}
		for _, m := range tests {
			if err := has(m[1], m[2], m[3]); err != nil {
				broken = append(broken, fmt.Sprintf("%s: %v", m[0], err))
			}
		}
	}
	return promises, broken
}

// hasTest returns an error unless the package in the folder has the test, and where one is named, its script.
func hasTest(folder, name, script string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		return err
	}
	if script != "" {
		if _, err := os.Stat(filepath.Join(folder, "testdata/script", script+".txtar")); err != nil {
			return err
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return nil
		}
	}
	return fmt.Errorf("no such test in %s", folder)
}

// TestThreatModelCanFail: a promise without a test, and one whose test is gone, are reported.
func TestThreatModelCanFail(t *testing.T) {
	for _, c := range []struct {
		line, want string
	}{
		{"- a promise", "names no test"},
		{"- a promise: `nbd/server.TestNone`", "no such test in nbd/server"},
		{"- a promise: `nbd.TestDrain`", "no such test in nbd"},
		{"- a promise: `cmd/vmdisk.TestScripts/none`", "none.txtar"},
		{"- a promise: `nbd/server.TestDrain`", ""},
		{"- a promise: `cmd/vmdisk.TestScripts/copy`", ""},
	} {
		n, broken := checkPromises("# x\n\n## Promises\n\n"+c.line+"\n\n## Not\n\n- other\n", hasTest)
		got := strings.Join(broken, "; ")
		if n != 1 || (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d promises, %q, want %q", c.line, n, got, c.want)
		}
	}
}

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// benchRun runs vmdisk bench in this process.
func benchRun(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := &cobra.Command{Use: "vmdisk", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(newBench())
	root.SetArgs(append([]string{"bench"}, args...))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// Every switch that fio's own help lists is known: it works, is accepted with a note, or
// is refused with a reason, and none is taken for an option of a job.
func TestFioSwitches(t *testing.T) {
	t.Parallel()
	help, err := exec.Command("fio", "--help").Output()
	if err != nil {
		t.Fatalf("fio --help (apt install fio): %v", err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  --([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		if !slices.Contains(names, m[1]) {
			names = append(names, m[1])
		}
	}
	if len(names) < 30 {
		t.Fatalf("fio's help has only %d switches: %q", len(names), names)
	}
	c := newBench()
	c.InitDefaultHelpFlag()
	for _, n := range names {
		if c.Flags().Lookup(n) == nil {
			t.Errorf("--%s is not known", n)
		}
	}
}

func TestFioSwitchesDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	warned, two := filepath.Join(dir, "warned.fio"), filepath.Join(dir, "two.fio")
	for name, text := range map[string]string{warned: "[j]\nbs = 4k\nnumber_ios=1\n", two: "[global]\nrw=read\n[a]\nbs=4k\n[b]\nstonewall\ndescription=a b\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	job := []string{"--disk", "null:1M", "--log-dir", dir, "-name=t", "-rw=randrw", "-bs=4k", "-number_ios", "200"}
	for _, c := range []struct {
		args                []string
		stdout, stderr, err string // patterns
	}{
		{job, `(?s)^t: \(g=0\): rw=randrw.*issued rwts: total=\d+`, `^$`, ``},
		{append(job, "--minimal"), `^3;vmdisk`, `^$`, ``},
		{append(job, "--minimal", "--terse-version=2"), `^2;t;0;0;`, `^$`, ``},
		{append(job, "--minimal", "--terse-version=4"), `^4;vmdisk[^;]*;t;0;0;`, `^$`, ``},
		{append(job, "--minimal", "--terse-version=5"), `^5;vmdisk[^;]*;t;0;0;`, `^$`, ``},
		{append(job, "--terse-version=1"), `^$`, `^$`, `want 2, 3, 4 or 5`},
		{append(job, "--append-terse"), `(?s)issued rwts.*\n3;vmdisk`, `^$`, ``},
		{append(job, "--status-interval=1"), `issued`, `--status-interval has no effect: `, ``},
		{append(job, "--alloc-size=1000", "--max-jobs=4", "--debug=io", "--idle-prof=system", "--aux-path=/tmp"), `issued`, `(?s)--alloc-size has no effect.*--aux-path|--aux-path.*--alloc-size`, ``},
		{append(job, "--eta=always", "--eta-newline=1", "--eta-interval=500"), `issued`, ``, ``},
		{append(job, "--eta-interval=20"), `^$`, `^$`, `500 milliseconds or more`},
		{append(job, "--eta-newline=soon"), `^$`, `^$`, `--eta-newline "soon"`},
		{append(job, "--bandwidth-log"), `issued`, `^$`, ``},
		{[]string{"--showcmd", two}, `^vmdisk bench --rw=read --name=a --bs=4k --name=b --stonewall '--description=a b'\n$`, `^$`, ``},
		{[]string{"--cmdhelp=blocksize"}, `^bs +works as in fio \(also blocksize\)\n$`, `^$`, ``},
		{[]string{"--cmdhelp"}, `(?s)bs +works.*zonesize`, `^$`, ``},
		{[]string{"--cmdhelp=bss"}, `^$`, `^$`, `did you mean bs\?`},
		{[]string{"--enghelp"}, `(?s)io_uring.*rbd +refused`, `^$`, ``},
		{[]string{"--enghelp=libaio,iodepth"}, `^libaio +iodepth`, `^$`, ``},
		{[]string{"--enghelp=nosuch"}, `^$`, `^$`, `unknown ioengine`},
		{[]string{"--disk", "null:1M", "--warnings-fatal", warned}, `^$`, `fio reads`, `--warnings-fatal`},
		{append(job, "--server"), `^$`, `^$`, `--server is refused`},
		{append(job, "--trigger=true"), `^$`, `^$`, `needs --trigger-file or --trigger-timeout`},
		{[]string{"--version"}, `^vmdisk-`, `^$`, ``},
		{append(job, "--output-format=html,normal"), `^$`, `^$`, `needs --output`},
	} {
		stdout, stderr, err := benchRun(t, c.args...)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if (err != nil) != (c.err != "") || !regexp.MustCompile(c.err).MatchString(text) || !regexp.MustCompile(c.stdout).MatchString(stdout) || !regexp.MustCompile(c.stderr).MatchString(stderr) {
			t.Errorf("%q: error %q, want %q\nstdout %.300q, want %q\nstderr %.300q, want %q", c.args, text, c.err, stdout, c.stdout, stderr, c.stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "agg-read_bw.log")); err != nil {
		t.Error(err)
	}
}

// A trigger ends jobs that would run for an hour, and runs its command.
func TestTrigger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, proof := filepath.Join(dir, "now"), filepath.Join(dir, "proof")
	job := []string{"--disk", "null:1M", "--name=t", "--rw=read", "--rate_iops=100", "--time_based", "--runtime=3600", "--trigger", "echo x > " + proof}
	for _, how := range []string{"--trigger-timeout=200ms", "--trigger-file=" + file} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, _ := benchRun(t, append(job, how)...)
		if !strings.Contains(stdout, "issued rwts") || !strings.Contains(stderr, "a trigger ended the jobs") {
			t.Errorf("%s: %q, %q", how, stdout, stderr)
		}
		if err := os.Remove(proof); err != nil {
			t.Errorf("%s: the command was not run: %v", how, err)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("the trigger's file is still there")
	}
}

// The page has its file for itself, and what stood in a file stays until there is
// something to put in its place.
func TestBenchOutputs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "report")
	job := []string{"--disk", "null:1M", "--log-dir", dir, "--name=t", "--number_ios=200", "--output", out}
	stdout, _, err := benchRun(t, append(job, "--output-format=html,normal")...)
	page, err2 := os.ReadFile(out)
	if err != nil || err2 != nil || !strings.HasSuffix(strings.TrimSpace(string(page)), "</html>") || !strings.Contains(stdout, "issued rwts") || strings.Contains(stdout, "<html") {
		t.Errorf("%v, %v: the page ends in %.40q, standard output begins with %.40q", err, err2, page[max(0, len(page)-40):], stdout)
	}
	if err := os.WriteFile(out, []byte("last week's"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The load cannot begin: the disk is too small for it.
	if _, _, err := benchRun(t, append(job, "--offset=2m")...); err == nil {
		t.Error("a job beyond its disk ran")
	}
	if _, _, err := benchRun(t, append(job, "--disk=nbd+unix:///?socket="+filepath.Join(dir, "none"))...); err == nil {
		t.Error("a job without a disk ran")
	}
	if old, err := os.ReadFile(out); err != nil || string(old) != "last week's" {
		t.Errorf("a load that did nothing put %.60q in the place of the last report, %v", old, err)
	}
	for _, args := range [][]string{
		{"--output", filepath.Join(dir, "no", "such", "file")}, {"--write_bw_log=" + filepath.Join(dir, "no", "such", "log")}, {"--write_lat_log=" + filepath.Join("/dev/null", "log")},
	} {
		stdout, _, err := benchRun(t, append([]string{"--disk", "null:1M", "--name=t", "--number_ios=5"}, args...)...)
		if err == nil || strings.Contains(stdout, "issued") {
			t.Errorf("%q: %v, %q", args, err, stdout)
		}
	}
}

package jobfile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// examplesDir is the folder of the examples of fio's source package, which
// scripts/fioexamples.sh fetches once (they are not part of this repository);
// $FIO_EXAMPLES names those of another release.
func examplesDir(t *testing.T) string {
	if dir := os.Getenv("FIO_EXAMPLES"); dir != "" {
		return dir
	}
	cmd := exec.Command("../../scripts/fioexamples.sh")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("scripts/fioexamples.sh: %v\n%s", err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// noDisk reports whether an example is about something else than disk I/O: an
// engine of another kind, zoned devices or SCSI and NVMe commands.
func noDisk(err error) bool {
	var pe *Error
	if !errors.As(err, &pe) {
		return false
	}
	for _, why := range []string{"ioengine ", rZoned, rScsi, rPI, rFDP} {
		if strings.Contains(err.Error(), why) && strings.Contains(err.Error(), "refused") {
			return true
		}
	}
	return false
}

// exampleEnv gives the variables of the examples plausible values.
func exampleEnv(name string) (string, bool) {
	switch name = strings.ToLower(name); {
	case strings.Contains(name, "rw"):
		return "randread", true
	case strings.Contains(name, "engine"):
		return "io_uring", true
	}
	return "4096", true
}

// TestFioExamples: at least 95 % of fio's own examples that concern disks parse.
func TestFioExamples(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob(filepath.Join(examplesDir(t), "*.fio"))
	disks, parsed := 0, 0
	for _, name := range files {
		p := Parser{Getenv: exampleEnv}
		err := p.File(name)
		if err == nil {
			_, err = p.Resolve(nil, false)
		}
		if noDisk(err) {
			t.Logf("no disk: %v", err)
			continue
		}
		disks++
		if err == nil {
			parsed++
			continue
		}
		t.Logf("refused: %v", err)
	}
	if disks < 30 {
		t.Errorf("only %d of %d examples concern disks", disks, len(files))
	}
	t.Logf("%d of %d examples concern disks, %d of them parse", disks, len(files), parsed)
	if parsed*100 < disks*95 {
		t.Errorf("%d of %d examples parse, want 95 %%", parsed, disks)
	}
}

package vm

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// endlessQEMU prints 16 MiB and a panic to the console it was given.
const endlessQEMU = `#!/usr/bin/python3
import re, socket, sys
words = " ".join(sys.argv)
text = (b"x" * 1023 + b"\n") * (16 << 10) + b"Kernel panic\n"
to = re.search(r"-serial file:(\S+)", words)
if to:
    open(to.group(1), "wb").write(text)
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(re.search(r"path=([^ ,]+)", words).group(1))
    s.sendall(text)
`

// TestProbeConsoleBounded: the guest of the probe fills no file of the host either.
func TestProbeConsoleBounded(t *testing.T) {
	bin, dir := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, QEMU), []byte(endlessQEMU), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := bootsWithKVM(t.Context(), "kernel", dir); err != nil {
		t.Error(err)
	}
	var size int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			size += info.Size()
			return err
		}
		return err
	})
	if err != nil || size > 0 {
		t.Errorf("the console left %d bytes in files (%v)", size, err)
	}
}

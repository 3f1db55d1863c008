package diskurl_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/diskurl"
)

// TestImageError: a program can tell that a file looks like an image, and as what; the
// text speaks of the option and not of a program's flags.
func TestImageError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 1016)...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := diskurl.Open(t.Context(), path, diskurl.Options{})
	var image *diskurl.ImageError
	if !errors.As(err, &image) || image.Path != path || image.Format != "qcow2" {
		t.Fatalf("%v", err)
	}
	if strings.Contains(err.Error(), " -") || !strings.Contains(err.Error(), "Format qcow2") {
		t.Errorf("the text is of a flag: %v", err)
	}
	_, err = diskurl.Open(t.Context(), path, diskurl.Options{FormatFlag: "-O"})
	if !strings.Contains(err.Error(), "-O qcow2") {
		t.Errorf("the flag is lost: %v", err)
	}
}

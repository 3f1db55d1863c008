package diskurl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The formats that Probe tells apart by what their files begin with.
var magics = []struct {
	format string
	at     int
	bytes  string
}{
	{"qcow", 0, "QFI\xfb\x00\x00\x00\x01"},
	{"qcow2", 0, "QFI\xfb"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"qed", 0, "QED\x00"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vpc", 0, "conectix"},
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
}

const magicBytes = 128

// Probe tells the format of a local file or block device by its first bytes:
// "raw" if it is no known image. Only what shows a file to its owner may act on
// the answer, never what then reads the file for a guest.
func Probe(path string) (string, error) {
	// O_NONBLOCK: a FIFO or a device without medium must not hang the opener.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() && st.Mode()&os.ModeType != os.ModeDevice {
		return "", fmt.Errorf("%s: neither a regular file nor a block device", path)
	}
	head := make([]byte, magicBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return formatOf(head[:n]), nil
}

func formatOf(head []byte) string {
	for _, m := range magics {
		if len(head) >= m.at && bytes.HasPrefix(head[m.at:], []byte(m.bytes)) {
			return m.format
		}
	}
	return "raw"
}

// ImageError refuses a file that begins like an image, though nobody said what it is.
// Format is what it looks like; Options.Format says what to take it as.
type ImageError struct {
	Path, Format string

	flag string
}

func (e *ImageError) Error() string {
	return fmt.Sprintf("%s begins like a %s image: say %s %s if it is one, or %s raw to take its bytes as they are", e.Path, e.Format, e.flag, e.Format, e.flag)
}

// refuseMagic is the rule of the package comment.
func refuseMagic(path, flag string) error {
	format, err := Probe(path)
	if err != nil {
		return err
	}
	if format != "raw" {
		return &ImageError{Path: path, Format: format, flag: flag}
	}
	return nil
}

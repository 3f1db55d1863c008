package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// TestRealImage carries a real guest's disk around: file, NBD server, block
// device, file; every copy equals the one before, and the last is clean.
func TestRealImage(t *testing.T) {
	if testing.Short() {
		t.Skip("copies gigabytes")
	}
	needRoot(t)
	image, err := peer.RealImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	data := allocated(t, image)
	t.Logf("%s: %d of %d MiB are data", image, data>>20, st.Size()>>20)
	if share := data * 100 / st.Size(); share < 17 || share > 21 {
		t.Errorf("%d %% of the image are data, want about 19", share)
	}

	served := empty(t, st.Size())
	s := serve(t, "raw:"+served)
	ours(t, "copy", "--verify", "raw:"+image, s.URI())
	ours(t, "compare", "raw:"+image, s.URI())

	device := loopDevice(t, empty(t, st.Size()))
	ours(t, "copy", "--cache", "none", s.URI(), "raw:"+device)
	ours(t, "compare", s.URI(), "raw:"+device)
	stop(t, s)

	last := filepath.Join(tempDir(t), "last")
	ours(t, "copy", "raw:"+device, "raw:"+last)
	ours(t, "compare", "raw:"+device, "raw:"+last)
	ours(t, "compare", "raw:"+image, "raw:"+last)
	if a, b := ours(t, "checksum", "raw:"+image), ours(t, "checksum", "raw:"+last); strings.Fields(a)[0] != strings.Fields(b)[0] {
		t.Errorf("checksums differ: %s%s", a, b)
	}

	// And as others see it.
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, last)
	run(t, "e2fsck", "-fn", last)
	if a := allocated(t, last); a > data+data/10 {
		t.Errorf("the last copy takes %d MiB, the image %d", a>>20, data>>20)
	}
}

// loopDevice attaches a file as a block device with direct I/O.
func loopDevice(t *testing.T, file string) string {
	t.Helper()
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--direct-io=on", file))
	t.Cleanup(func() {
		if err := detach(device); err != nil {
			t.Error(err)
		}
	})
	return device
}

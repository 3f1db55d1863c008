package lab

import (
	"strings"
	"testing"
)

// TestCheckWhole: a device that goes to a guest as a whole has the size of the disks it
// is compared with.
func TestCheckWhole(t *testing.T) {
	t.Parallel()
	if err := checkWhole(1<<30, 1<<30); err != nil {
		t.Error(err)
	}
	for _, got := range []int64{1 << 29, 1 << 31} {
		if err := checkWhole(got, 1<<30); err == nil || !strings.Contains(err.Error(), "used as a whole, the disk of a node has 1073741824: --set disk=") {
			t.Errorf("%d bytes: %v", got, err)
		}
	}
}

package diskurl

import (
	"fmt"

	nearest "github.com/vmdisk/vmdisk/suggest"
)

// suggest returns ` (did you mean "x"?)` for the nearest known name, or "".
func suggest(name string, known []string) string {
	best := nearest.Nearest(name, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

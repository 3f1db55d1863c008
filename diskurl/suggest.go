package diskurl

import (
	"fmt"

	names "github.com/vmdisk/vmdisk/suggest"
)

// suggest returns ` (did you mean "x"?)` for the nearest known name, or "".
func suggest(name string, known []string) string {
	best := names.Nearest(name, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

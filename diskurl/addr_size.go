package diskurl

import (
	"fmt"
)

// SizeAddr is a disk of this process, made anew by whoever opens it: mem, null and pattern.
type SizeAddr struct {
	Name string
	Size int64
}

// Scheme implements Addr.
func (a SizeAddr) Scheme() string { return a.Name }

// String implements Addr.
func (a SizeAddr) String() string { return a.Name + ":" + SizeText(a.Size) }

func parseSizeAddr(s string) (Addr, error) {
	scheme, rest, _ := cutScheme(s)
	size, err := ParseSize(rest)
	if err != nil {
		return nil, fmt.Errorf("want %s:SIZE: %w", scheme, err)
	}
	return SizeAddr{scheme, size}, nil
}

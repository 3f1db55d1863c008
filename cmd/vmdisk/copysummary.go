package main

import (
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/diskcopy"
)

func copySummary(s diskcopy.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "copied %s in %.2f s:", sizeText(s.Size), s.WallSeconds)
	for _, k := range []struct {
		name string
		diskcopy.Count
	}{{"read", s.Read}, {"wrote", s.Write}, {"zeroed", s.Zero}, {"shared", s.Clone}, {"skipped", s.Skip}} {
		if k.Ops > 0 {
			fmt.Fprintf(&b, " %s %d bytes,", k.name, k.Bytes)
		}
	}
	fmt.Fprintf(&b, " zeros by: %s\n", s.ZeroBy)
	if s.ResumedAt > 0 || s.ResentBytes > 0 {
		fmt.Fprintf(&b, "resumed at offset %d, up to %d bytes were sent again\n", s.ResumedAt, s.ResentBytes)
	}
	b.WriteString(checkedText(s))
	if s.Verified {
		b.WriteString("verified: source and target are equal\n")
	}
	return b.String()
}

// checkedText says what a resumed copy knows of the part that was done before.
func checkedText(s diskcopy.Stats) string {
	switch {
	case s.TrustedBytes > 0:
		return fmt.Sprintf("trusted, not compared: that neither source nor target changed in the first %d bytes\n", s.TrustedBytes)
	case s.DifferedBytes > 0:
		return fmt.Sprintf("compared the first %d bytes, source with target: %d bytes had changed meanwhile and were written again\n", s.CheckedBytes, s.DifferedBytes)
	case s.CheckedBytes > 0:
		return fmt.Sprintf("compared the first %d bytes, source with target: equal\n", s.CheckedBytes)
	}
	return ""
}

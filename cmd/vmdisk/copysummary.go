package main

import (
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/diskcopy"
)

func copySummary(s diskcopy.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "copied %s in %.2f s", aboutText(s.Size), s.WallSeconds)
	if s.WallSeconds > 0 && s.Size > 0 {
		fmt.Fprintf(&b, " (%.0fM/s)", float64(s.Size)/s.WallSeconds/(1<<20))
	}
	var parts []string
	for _, k := range []struct {
		name, after string
		diskcopy.Count
	}{
		{"read", "", s.Read}, {"wrote", "", s.Write}, {"zeroed", zeroedBy[s.ZeroBy], s.Zero},
		{"shared", " with the source", s.Clone}, {"left", " that were zeros there already", s.Skip},
	} {
		if k.Ops > 0 {
			parts = append(parts, fmt.Sprintf("%s %s%s", k.name, aboutText(k.Bytes), k.after))
		}
	}
	if parts != nil {
		b.WriteString(": " + strings.Join(parts, ", "))
	}
	b.WriteString("\n")
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

// zeroedBy says how zeros reached the target, where that is more than one way.
var zeroedBy = map[string]string{
	"bulk":                      " all at once",
	"each hole":                 " hole by hole",
	"each hole, where not zero": " hole by hole, where it was not zero",
}

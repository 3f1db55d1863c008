package main

import (
	"runtime/debug"
	"testing"
)

// TestVersionOf: reports carry a version that can be found again, unless nothing is known.
func TestVersionOf(t *testing.T) {
	t.Parallel()
	const revision = "0123456789abcdef0123456789abcdef01234567"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	for _, c := range []struct {
		linked, module string
		settings       []debug.BuildSetting
		want, revision string
	}{
		{"v1.2", "(devel)", vcs("false"), "v1.2", revision},
		{"", "v0.0.0-2026-0123456789ab", vcs("false"), "v0.0.0-2026-0123456789ab", revision},
		{"", "(devel)", vcs("false"), "0123456789ab", revision},
		{"", "(devel)", vcs("true"), "0123456789ab-dirty", revision + "-dirty"},
		{"", "", vcs("false"), "0123456789ab", revision},
		{"", "(devel)", nil, "(devel)", ""},
		{"", "", nil, "(devel)", ""},
	} {
		got := versionOf(c.linked, &debug.BuildInfo{Main: debug.Module{Version: c.module}, Settings: c.settings})
		if got.Version != c.want || got.Revision != c.revision {
			t.Errorf("%+v: %q, revision %q", c, got.Version, got.Revision)
		}
	}
	if got := versionOf("", nil); got.Version != "(devel)" {
		t.Errorf("without information: %q", got.Version)
	}
}

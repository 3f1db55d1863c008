package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in release builds.
var version string

type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

func buildVersion() versionResult {
	info, _ := debug.ReadBuildInfo()
	return versionOf(version, info)
}

// unknownVersion is Go's word for a build that knows nothing of where it came from.
const unknownVersion = "(devel)"

// shortRevision is how much of a revision names it: as much as Go takes.
const shortRevision = 12

// versionOf is the linker's version, or else what the Go command has recorded: the
// module's version, or the revision of the checkout.
func versionOf(linked string, info *debug.BuildInfo) versionResult {
	v := versionResult{Version: cmp.Or(linked, unknownVersion), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info == nil {
		return v
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			v.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-dirty"
		}
	}
	module := info.Main.Version
	if module == unknownVersion {
		module = ""
	}
	short := v.Revision[:min(len(v.Revision), shortRevision)]
	if v.Revision != "" {
		v.Revision += modified
		short += modified
	}
	v.Version = cmp.Or(linked, module, short, unknownVersion)
	return v
}

func printVersion(w io.Writer) error {
	v := buildVersion()
	revision := ""
	if v.Revision != "" {
		revision = " " + v.Revision
	}
	_, err := fmt.Fprintf(w, "vmdisk %s%s (%s %s/%s)\n", v.Version, revision, v.Go, v.OS, v.Arch)
	return err
}

func newVersion() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return writeJSON(c.OutOrStdout(), buildVersion())
			}
			return printVersion(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

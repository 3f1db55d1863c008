package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/diskurl"
)

// writeManPages adds to the library's pages what it does not know: the values that flags
// take, the exit status, the neighbours; and the pages of disks and of each filter.
func writeManPages(root *cobra.Command, dir string) error {
	var err error
	each(root, func(c *cobra.Command) {
		path := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1")
		text, readErr := os.ReadFile(path)
		if readErr != nil {
			return // of a command that has no page
		}
		if err == nil {
			err = os.WriteFile(path, []byte(completeMan(c, string(text))), 0o666)
		}
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "vmdisk-disks.7"), []byte(disksMan(root)), 0o666); err != nil {
		return err
	}
	for _, f := range diskurl.Filters() {
		if err := os.WriteFile(filepath.Join(dir, "vmdisk-filter-"+f.Name+".7"), []byte(filterMan(f)), 0o666); err != nil {
			return err
		}
	}
	return nil
}

func each(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		each(sub, f)
	}
}

const seeAlso = ".SH SEE ALSO\n"

func completeMan(c *cobra.Command, page string) string {
	var add strings.Builder
	var values []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if words, ok := f.Value.(*choice); ok {
			values = append(values, fmt.Sprintf(".TP\n\\fB--%s\\fP\n%s\n", roff(f.Name), roff(strings.Join(words.allowed, ", "))))
		}
	})
	if values != nil {
		add.WriteString(".SH VALUES\n" + strings.Join(values, ""))
	}
	if strings.Contains(c.Long, "Exit status:") || c.DisableFlagParsing {
		add.WriteString(".SH EXIT STATUS\nSee above; 130 after SIGINT and 143 after SIGTERM.\n")
	} else {
		add.WriteString(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage; the program ends by SIGINT and SIGTERM, which shells call 130 and 143.\n")
	}
	before, after, found := strings.Cut(page, seeAlso)
	add.WriteString(seeAlso)
	if found {
		add.WriteString(strings.TrimRight(after, "\n") + ",\n")
	}
	return before + add.String() + "\\fBvmdisk-disks(7)\\fP\n"
}

func manHead(name, summary string) string {
	return fmt.Sprintf(".TH \"%s\" \"7\" \"Jan 2026\" \"vmdisk\" \"Miscellaneous\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), name, roff(summary))
}

// roff escapes text for a page.
func roff(s string) string {
	s = strings.NewReplacer("\\", "\\e", "-", "\\-").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = "\\&" + s
	}
	return s
}

// disksMan is the page of disk URLs: what the program's help says, and the filters.
func disksMan(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(manHead("vmdisk-disks", "how vmdisk names disks"))
	b.WriteString(".SH DESCRIPTION\nA DISK of vmdisk's commands is a path or a URL.\n.PP\n.nf\n")
	for _, line := range strings.Split(root.Long, "\n") {
		if strings.HasPrefix(line, "  ") {
			b.WriteString(roff(line) + "\n")
		}
	}
	b.WriteString("  https://HOST:54322/images/TICKET  image of oVirt's transfer service\n")
	b.WriteString(".fi\n.SH FORMATS\n" + roff(strings.Join(diskurl.Formats(), ", ")) + "\n")
	b.WriteString(".PP\nA file's format comes from its user. One that begins like an image is refused unless its format is given.\n")
	b.WriteString(".SH FILTERS\nA filter goes over a disk: \\fB\\-\\-filter NAME[:KEY=VALUE,...]\\fP; the first is outermost.\n")
	var pages []string
	for _, f := range diskurl.Filters() {
		fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s\n", roff(f.Name), roff(f.Summary))
		pages = append(pages, "\\fBvmdisk\\-filter\\-"+roff(f.Name)+"(7)\\fP")
	}
	b.WriteString(seeAlso + "\\fBvmdisk(1)\\fP,\n" + strings.Join(pages, ",\n") + "\n")
	return b.String()
}

// filterMan is the page of a filter, from its row.
func filterMan(f diskurl.FilterInfo) string {
	var b strings.Builder
	b.WriteString(manHead("vmdisk-filter-"+f.Name, f.Summary))
	form := f.Name
	if f.Keys != nil {
		form += ":KEY=VALUE,..."
	}
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB\\-\\-filter %s\\fP\n.SH DESCRIPTION\nOver a disk, %s.\n", roff(form), roff(f.Summary))
	if f.Keys != nil {
		b.WriteString(".SH PARAMETERS\n")
	}
	for _, k := range f.Keys {
		value := k.Form
		if k.Values != nil {
			value = strings.Join(k.Values, "|")
		}
		fmt.Fprintf(&b, ".TP\n\\fB%s=%s\\fP\n%s\n", roff(k.Name), roff(value), roff(k.Help))
	}
	return b.String() + seeAlso + "\\fBvmdisk\\-disks(7)\\fP\n"
}

package spec

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const reference = "../../docs/lab-axes.md"

// TestReference: the tables of the reference are those of the code.
func TestReference(t *testing.T) {
	t.Parallel()
	page := readPage(t)
	for name, table := range map[string]string{"fields": fieldTable(), "axes": axisTable()} {
		region := regexp.MustCompile(`(?s)(<!-- ` + name + `: [^\n]*-->\n).*?(<!-- end -->)`)
		if !region.MatchString(page) {
			t.Fatalf("%s has no place for the table of %s", reference, name)
		}
		page = region.ReplaceAllStringFunc(page, func(old string) string {
			m := region.FindStringSubmatch(old)
			return m[1] + "\n" + table + "\n" + m[2]
		})
	}
	golden(t, reference, page)
}

// TestReferenceExample: what the reference shows as a file is one.
func TestReferenceExample(t *testing.T) {
	t.Parallel()
	m := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(readPage(t))
	if m == nil {
		t.Fatal("no example")
	}
	s := mustParse(t, m[1])
	if got := len(cells(t, s)); got != 5+2*4 {
		t.Errorf("%d cells", got)
	}
	for _, line := range strings.Split(readPage(t), "\n") {
		words := strings.Fields(line)
		if !strings.HasPrefix(line, "    vmdisk lab run ") {
			continue
		}
		var set []string
		for i, w := range words {
			if w == "--set" {
				set = append(set, words[i+1])
			}
		}
		cells(t, load(t, words[3], set...))
	}
}

func readPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func fieldTable() string {
	var b strings.Builder
	b.WriteString("| key | --set | values | default | what it is |\n|---|---|---|---|---|\n")
	for _, f := range Fields() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", f.Path, f.Set, f.Values, f.Default, f.Help)
	}
	return b.String()
}

func axisTable() string {
	var b strings.Builder
	b.WriteString("| axis | values | default | what it is |\n|---|---|---|---|\n")
	for _, a := range Axes() {
		star := ""
		if a.GuestOnly {
			star = " *"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s | %s |\n", a.Name, star, strings.ReplaceAll(a.Values, "|", "\\|"), a.Default, a.Help)
	}
	return b.String()
}

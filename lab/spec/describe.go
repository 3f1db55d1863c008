package spec

import (
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
)

// Describe fills in the experiment's own values where a text for people names them in braces:
// {nodes} in words, {clients}, {disk} and {workloads}. What --set changed is so said as it was run.
func (s *Spec) Describe(text string) string {
	text = strings.NewReplacer("{nodes}", numeral(s.Nodes), "{clients}", s.clients(), "{disk}", spelledSize(s.Disk.Size),
		"{workloads}", s.workloadTitles()).Replace(text)
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// spelledSize writes bytes as prose does: 2 GiB.
func spelledSize(n int64) string {
	text := diskurl.FormatSize(n)
	if unit := text[len(text)-1:]; strings.Contains("KMGTPE", unit) {
		return text[:len(text)-1] + " " + unit + "iB"
	}
	return text + " bytes"
}

func numeral(n int) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n < len(words) {
		return words[n]
	}
	return strconv.Itoa(n)
}

// clients are what the nodes are, where all sweeps agree.
func (s *Spec) clients() string {
	kinds := map[string]bool{}
	for _, w := range s.Sweeps {
		client := w.Client
		if client == "" {
			client = s.Client
		}
		kinds[client] = true
	}
	many := s.Nodes != 1
	switch {
	case len(kinds) > 1:
		return plural("client", "clients", many)
	case kinds[ClientHost]:
		return plural("process of this host", "processes of this host", many)
	}
	return plural("virtual machine", "virtual machines", many)
}

func plural(one, more string, many bool) string {
	if many {
		return more
	}
	return one
}

func (s *Spec) workloadTitles() string {
	titles := make([]string, len(s.Workloads))
	for i, w := range s.Workloads {
		titles[i] = w.Title
		if w.Title == "" {
			titles[i] = w.Name
		}
	}
	return strings.Join(titles, "; ")
}

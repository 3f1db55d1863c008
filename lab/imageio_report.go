package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/report"
)

func (s *imageioStudy) report(ways []way, loads []load) *findings {
	image := "a real one"
	if s.made {
		image = "made, 19 % of data"
	}
	res := &findings{
		doc: &report.Document{Title: "Fast zeroing in the transfer daemon", Facts: []report.Fact{
			{Name: "image", Value: image},
			{Name: "disks", Value: fmt.Sprintf("%s each, to loop devices with direct I/O in %s", diskurl.FormatSize(s.disk), os.TempDir())},
			{Name: "storage of the uploads", Value: s.storage()},
			{Name: "uploads", Value: "HTTPS, a process each, strategy " + s.strategy + fmt.Sprintf(", median of %d", s.rounds)},
		}},
		raw: struct {
			Experiment string            `json:"experiment"`
			Parameters map[string]string `json:"parameters"`
			Ways       []way             `json:"ways"`
			Loads      []load            `json:"loads"`
		}{"imageio-fast-zero", s.params.values, ways, loads},
		charts: []namedChart{{"ways", wayBars(ways)}, {"uploads", loadBars(loads)}},
	}
	var commands []string
	for _, w := range ways {
		commands = append(commands, w.Name+": "+w.Command)
	}
	res.doc.Sections = []report.Section{
		{Title: "One image to a block device", Items: []report.Item{wayTable(ways)}, Text: commands},
		{Title: "Concurrent uploads", Items: []report.Item{loadTable(loads)}},
		{Title: "Legend", Text: imageioLegend},
	}
	return res
}

// storage tells what limits the concurrent uploads.
func (s *imageioStudy) storage() string {
	if s.rate == 0 {
		return "as fast as the devices are"
	}
	return fmt.Sprintf("%s/s for all together, shared alike", diskurl.FormatSize(s.rate))
}

const mib = 1 << 20

func wayTable(ways []way) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "way"}, {Name: "real", Unit: "s", Digits: 2}, {Name: "user", Unit: "s", Digits: 2},
		{Name: "sys", Unit: "s", Digits: 2}, {Name: "virtual", Unit: "MiB/s", Digits: 0}, {Name: "dd / it", Digits: 2}}}
	for _, w := range ways {
		t.Add(w.Name, w.Real, w.User, w.Sys, w.Rate/mib, ways[0].Real/w.Real)
	}
	return t
}

func loadTable(loads []load) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "uploads"}, {Name: "full", Unit: "%"}, {Name: "zero"}, {Name: "real", Unit: "s", Digits: 2},
		{Name: "user", Unit: "s", Digits: 2}, {Name: "sys", Unit: "s", Digits: 2}, {Name: "virtual", Unit: "MiB/s", Digits: 0},
		{Name: "data", Unit: "MiB/s", Digits: 0}, {Name: "requests"}, {Name: "requests/s", Digits: 0},
		{Name: "elapsed/request", Unit: "ms", Digits: 2}, {Name: "latency", Unit: "ms", Digits: 2}, {Name: "fast/write", Digits: 2}}}
	for _, l := range loads {
		ratio := any("")
		if l.Relative > 0 {
			ratio = l.Relative
		}
		t.Add(l.Uploads, l.Full, l.Zero, l.Real, l.User, l.Sys, l.Virtual/mib, l.Data/mib, l.Requests, l.PerSec, l.Share*1e3, l.Latency*1e3, ratio)
	}
	return t
}

func wayBars(ways []way) *report.Bars {
	b := &report.Bars{Title: "Time to copy the image to a block device", Y: report.Axis{Label: "s", Zero: true}, Digits: 2,
		Series: []report.BarSeries{{Name: "real"}}}
	for _, w := range ways {
		b.Groups = append(b.Groups, w.Name)
		b.Series[0].Values = append(b.Series[0].Values, w.Real)
	}
	return b
}

func loadBars(loads []load) *report.Bars {
	b := &report.Bars{Title: "Time of concurrent uploads", Y: report.Axis{Label: "s", Zero: true}, Digits: 2,
		Series: []report.BarSeries{{Name: "zero=write"}, {Name: "zero=fast"}}}
	for _, l := range loads {
		if g := fmt.Sprintf("%d x %d %%", l.Uploads, l.Full); !slices.Contains(b.Groups, g) {
			b.Groups = append(b.Groups, g)
		}
		i := slices.IndexFunc(b.Series, func(s report.BarSeries) bool { return s.Name == "zero="+l.Zero })
		b.Series[i].Values = append(b.Series[i].Values, l.Elapsed)
	}
	return b
}

// shown is a command with the folders of its arguments left out.
func shown(argv []string) string {
	words := slices.Clone(argv)
	for i, w := range words {
		key, value, ok := strings.Cut(w, "=")
		switch {
		case ok && filepath.IsAbs(value) && !strings.HasPrefix(value, "/dev/"):
			words[i] = key + "=" + filepath.Base(value)
		case filepath.IsAbs(w) && !strings.HasPrefix(w, "/dev/"):
			words[i] = filepath.Base(w)
		case strings.HasPrefix(w, "https://"):
			words[i] = w[:strings.LastIndexByte(w, '/')] + "/TICKET" // a credential
		}
	}
	return strings.Join(words, " ")
}

var imageioLegend = []string{
	"zero=write: the daemon turns each zero into writes, as daemons did before they had fast zeroing; zero=fast: it zeroes by the cheapest means of the storage.",
	"The figures published for 10 disks of 100 GiB on Fibre Channel: fast / write 0.54 at 33 % full (50 to 27 minutes) and 0.56 at 66 % (75 to 42 minutes).",
	"The storage of concurrent uploads is slower than the processors, as it was there: its rate is limited for data and for zeros that are written. Where the processors are what limits (rate=0), written zeros hide behind encryption.",
	"real is of the slowest upload, user and sys are means of the uploading processes.",
	"Requests are the lines of the daemon's log; elapsed is from its first OPTIONS to its last FLUSH. elapsed/request divides the one by the other, which is no request's duration where several run at once; latency is the mean time of an operation in the daemon, from the lines at the ends of connections.",
	"virtual counts holes, data does not.",
}

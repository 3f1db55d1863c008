package lab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/report"
)

// stripe is the length of each piece of data and each hole of the image.
const stripe = 1 << 20

var fastZero = Experiment{
	Name:    "fast-zero",
	Summary: "copy a half-empty image to two kinds of servers, by every strategy for zeroes",
	Params: []Param{
		{"size", "100M", "size of the image, a multiple of 2M: data and holes alternate each MiB"},
		{"write-delay", "1500us", "time that each write takes on the server"},
		{"zero-delay", "100us", "time that each zero takes on a server that can zero"},
		{"queue-depth", "1", "requests in flight"},
		{"block-status", "both", "off, on, or both, a table each"},
		{"qemu-img", "auto", "auto runs `qemu-img convert` where it is installed; or off"},
	},
	run: runFastZero,
}

// study is one run of the experiment.
type study struct {
	*run
	size                  int64
	writeDelay, zeroDelay time.Duration
	depth                 int
	qemuImg               string // path of the program, or empty
	image                 string // path of the source
}

// cellKind is one kind of server.
type cellKind struct {
	Server       string `json:"server"` // "A", "B", or "-" for one that offers no zeroing
	ZeroMode     string `json:"zeromode"`
	FastZeroMode string `json:"fastzeromode"`
	BlockStatus  bool   `json:"block_status"`
}

// cell is one copy to one kind of server.
type cell struct {
	cellKind
	Tool     string  `json:"tool"` // the strategy, or "qemu-img"
	Seconds  float64 `json:"seconds"`
	Writes   int64   `json:"writes"`        // requests that reached the server
	Zeroes   int64   `json:"zeroes"`        // zero requests that it did
	Refused  int64   `json:"refused"`       // fast zero requests that it declined
	Probes   int64   `json:"probes"`        // of Zeroes, those that measured the server
	Status   int64   `json:"status"`        // block status queries
	Wrote    int64   `json:"bytes_written"` // by the server, to its storage
	ZeroBy   string  `json:"zero_by,omitempty"`
	Straight float64 `json:"to_straight_copy"` // ratio of times
	Ideal    float64 `json:"to_ideal"`         // ratio of times
}

func runFastZero(ctx context.Context, r *run) (*findings, error) {
	s := &study{run: r,
		size:       r.params.size("size", 2*stripe, 1<<30),
		writeDelay: r.params.duration("write-delay", time.Minute),
		zeroDelay:  r.params.duration("zero-delay", time.Minute),
		depth:      int(r.params.number("queue-depth", 1, 256)),
	}
	status := r.params.choice("block-status", "both", "off", "on")
	if r.params.choice("qemu-img", "auto", "off") == "auto" {
		s.qemuImg, _ = exec.LookPath("qemu-img")
	}
	if *r.params.err != nil {
		return nil, *r.params.err
	}
	if err := s.makeImage(ctx); err != nil {
		return nil, err
	}
	var cells []cell
	var tables [][]cell
	for _, on := range []bool{false, true} {
		if status == "off" && on || status == "on" && !on {
			continue
		}
		got, err := s.table(ctx, on)
		if err != nil {
			return nil, err
		}
		tables = append(tables, got)
		cells = append(cells, got...)
	}
	return s.report(ctx, tables, cells), nil
}

// makeImage writes the source: data in even MiB, holes in odd ones.
func (s *study) makeImage(ctx context.Context) error {
	s.image = filepath.Join(s.tmp, "image.raw")
	if err := diskurl.Create(ctx, s.image, diskurl.CreateOptions{Size: s.size}); err != nil {
		return err
	}
	d, err := diskurl.Open(ctx, diskurl.File(s.image).As(diskurl.FormatRaw).String(), diskurl.Options{})
	if err != nil {
		return err
	}
	for off := int64(0); off < s.size && err == nil; off += 2 * stripe {
		err = d.WriteAt(ctx, bytes.Repeat([]byte{byte(off/stripe) | 1}, stripe), off, 0)
	}
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}

// kinds are the servers of a table.
func kinds(status bool) []cellKind {
	all := []cellKind{{"-", "none", "none", status}}
	for _, server := range []struct{ name, mode string }{{"A", "plugin"}, {"B", "emulate"}} {
		for _, fast := range []string{"none", "slow", "ignore", "default"} {
			if status && fast == "slow" {
				continue // nothing is zeroed there that a refusal could change
			}
			all = append(all, cellKind{server.name, server.mode, fast, status})
		}
	}
	return all
}

// history is the order in which the strategies came up, the straight copy first.
var history = []diskcopy.Strategy{
	diskcopy.Write, diskcopy.ZeroEach, diskcopy.StatusFirst, diskcopy.PreZero, diskcopy.NoFallback, diskcopy.Auto,
}

// toolQemu is cell.Tool of a copy by qemu-img.
const toolQemu = "qemu-img"

func strategyNames() []string {
	names := make([]string, 0, len(history))
	for _, s := range history {
		names = append(names, string(s))
	}
	return names
}

// table runs every strategy against every kind of server.
func (s *study) table(ctx context.Context, status bool) ([]cell, error) {
	var cells []cell
	for _, k := range kinds(status) {
		for _, strategy := range history {
			if k.Server == "-" && strategy != diskcopy.Write && strategy != diskcopy.Auto {
				continue // without zeroes they are the same
			}
			c, err := s.runCell(ctx, k, string(strategy), s.copyWith(strategy))
			if err != nil {
				return nil, err
			}
			cells = append(cells, c)
		}
		if s.qemuImg == "" || status {
			continue // qemu-img asks for no block status of its target
		}
		c, err := s.runCell(ctx, k, toolQemu, s.copyWithQemu)
		if err != nil {
			return nil, err
		}
		cells = append(cells, c)
	}
	straight := straightTime(cells)
	for i := range cells {
		cells[i] = s.rate(cells[i], straight)
	}
	return cells, nil
}

// straightTime is the median time of the straight copies: to every kind of server
// they are the same work.
func straightTime(cells []cell) float64 {
	var all []float64
	for _, c := range cells {
		if c.Tool == string(diskcopy.Write) {
			all = append(all, c.Seconds)
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// rate compares a cell with the straight copy and with the ideal: each piece of data written once, and each hole skipped where block status
// shows that the target is empty, else zeroed in the cheapest way the server
// really has. A write costs what it cost in the straight copy; a zero costs as much on a
// server that writes it, else its delay.
func (s *study) rate(c cell, straight float64) cell {
	pieces := float64(s.size / stripe)
	write := straight / pieces
	ideal := write * pieces / 2
	switch {
	case c.BlockStatus:
	case c.Server == "A" && (c.FastZeroMode == "default" || c.FastZeroMode == "ignore"):
		ideal += s.zeroDelay.Seconds()
	case c.Server == "A":
		ideal += s.zeroDelay.Seconds() * pieces / 2
	default:
		ideal += write * pieces / 2
	}
	c.Straight, c.Ideal = c.Seconds/straight, c.Seconds/ideal
	return c
}

// parameters are shown with the results.
func (s *study) facts(ctx context.Context) []report.Fact {
	facts := []report.Fact{
		{Name: "image", Value: fmt.Sprintf("%s, data and holes alternate each MiB", diskurl.FormatSize(s.size))},
		{Name: "delays", Value: fmt.Sprintf("%v a write, %v a zero", s.writeDelay, s.zeroDelay)},
		{Name: "requests", Value: fmt.Sprintf("1 MiB, %d in flight", s.depth)},
	}
	if s.qemuImg == "" {
		return append(facts, report.Fact{Name: "qemu-img", Value: "left out"})
	}
	text, err := exec.CommandContext(ctx, s.qemuImg, "--version").Output()
	version, _, _ := bytes.Cut(text, []byte("\n"))
	if err != nil {
		version = []byte(err.Error())
	}
	return append(facts, report.Fact{Name: "qemu-img", Value: string(version)})
}

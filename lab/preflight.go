package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/procfs"

	"github.com/vmdisk/vmdisk/lab/outcome"
	"github.com/vmdisk/vmdisk/lab/spec"
	"github.com/vmdisk/vmdisk/lab/vm"
)

// guestOverhead is what QEMU needs of the host beside the guest's memory.
const guestOverhead = 96 << 20

// preflight expands the cells and finds out, before anything starts, which of them
// this host can run, and what the others lack.
func (m *matrix) preflight(ctx context.Context) (err error) {
	if m.cells, err = m.spec.Cells(); err != nil {
		return err
	}
	m.plan = &outcome.Results{
		Schema: outcome.Schema, Experiment: m.spec.Name, Title: m.spec.Describe(m.spec.Title), Summary: m.spec.Describe(m.spec.Summary),
		Repeats: m.spec.Repeats, Environment: m.environment(ctx), Sweeps: sweeps(m.spec),
	}
	for _, c := range m.cells {
		why := m.missing(ctx, c)
		if err := ctx.Err(); err != nil {
			return err
		}
		m.plan.Cells = append(m.plan.Cells, outcome.Cell{
			ID: c.ID, Sweep: c.Sweep, Workload: c.Workload, Client: c.Client, Nodes: c.Nodes, Varied: c.Varied, Skipped: why,
		})
	}
	return m.chooseAccel(ctx)
}

// missing are the reasons why a cell cannot run here.
func (m *matrix) missing(ctx context.Context, c spec.Cell) []string {
	if c.Impossible != "" {
		return []string{"cannot be: " + c.Impossible}
	}
	var why []string
	need := int64(0)
	if c.Client == spec.ClientGuest {
		why = append(why, vm.Missing(ctx, m.spec.Guest, c.Setup, c.FileSystem)...)
		need = int64(c.Nodes) * (m.spec.Guest.Memory + guestOverhead)
	} else if m.spec.Guest.Engine == "fio" {
		why = append(why, lacksFio()...)
	}
	options, written := m.storeOptions(), m.spec.Writes(c)
	why = append(why, options.Missing(ctx, c.Setup, c.Client, c.Nodes, written)...)
	_, ram := options.Need(c.Setup, c.Nodes, written)
	if free := availableMemory(); need > 0 && need+ram > free {
		why = append(why, fmt.Sprintf("%d guests and their disks need %d MiB of memory, %d MiB are available: --set memory=SIZE or --set nodes=N", c.Nodes, (need+ram)>>20, free>>20))
	}
	slices.Sort(why)
	return slices.Compact(why)
}

func availableMemory() int64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	info, err := fs.Meminfo()
	if err != nil || info.MemAvailableBytes == nil {
		return 0
	}
	return int64(*info.MemAvailableBytes)
}

// chooseAccel decides between KVM and TCG once a guest is to run at all: a probe
// guest tells whether KVM really works, because /dev/kvm alone does not.
func (m *matrix) chooseAccel(ctx context.Context) error {
	if !m.runsGuests() {
		return nil
	}
	env := &m.plan.Environment
	switch m.spec.Guest.Accel {
	case vm.AccelTCG:
		m.accel, env.AccelWhy = vm.AccelTCG, "it was asked for"
	default:
		m.logf("trying whether KVM works on this host")
		ok, why := vm.ProbeKVM(ctx)
		switch {
		case ok:
			m.accel = vm.AccelKVM
		case m.spec.Guest.Accel == vm.AccelKVM:
			return fmt.Errorf("guests cannot run with KVM: %s; --set accel=tcg emulates them", why)
		default:
			m.accel, env.AccelWhy = vm.AccelTCG, why
		}
	}
	env.Accel = m.accel
	return ctx.Err()
}

func (m *matrix) runsGuests() bool {
	return slices.ContainsFunc(m.plan.Cells, func(c outcome.Cell) bool { return c.Client == spec.ClientGuest && len(c.Skipped) == 0 })
}

// nothing says why not one cell can run, "" if one can.
func (m *matrix) nothing() string {
	var why []string
	for _, c := range m.plan.Cells {
		if len(c.Skipped) == 0 {
			return ""
		}
		for _, w := range c.Skipped {
			if !slices.Contains(why, w) {
				why = append(why, w)
			}
		}
	}
	if len(why) > 2 {
		return fmt.Sprintf("%s; %s; and %d more reasons", why[0], why[1], len(why)-2)
	}
	return strings.Join(why, "; ")
}

// sweeps are the spec's for the report.
func sweeps(s *spec.Spec) []outcome.Sweep {
	var all []outcome.Sweep
	for _, w := range s.Sweeps {
		x := outcome.Sweep{Name: w.Name, Title: s.Describe(w.Title), Text: s.Describe(w.Text)}
		for _, a := range w.Axes {
			x.Axes = append(x.Axes, a.Name)
		}
		for _, name := range w.Workloads {
			l := s.Workload(name)
			x.Workloads = append(x.Workloads, outcome.Workload{Name: l.Name, Title: l.Title, JobFile: l.JobFile, Metric: l.Metric})
		}
		all = append(all, x)
	}
	return all
}

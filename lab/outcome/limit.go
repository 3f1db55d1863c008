package outcome

import (
	"fmt"
	"strings"

	"github.com/vmdisk/vmdisk/lab/spec"
)

// What can limit a cell.
const (
	LimitGuestCPU  = "guest-cpu"
	LimitHostCPU   = "host-cpu"
	LimitServerCPU = "server-cpu"
	LimitClientCPU = "client-cpu"
	LimitDevice    = "device"
	LimitRate      = "rate"
	// LimitLatency: nothing was used up, so each I/O's own time at the depth that was
	// asked for was the limit.
	LimitLatency = "latency"
)

// From these shares on a resource counts as used up.
const (
	guestFull  = 0.90 // of a guest's CPUs
	hostFull   = 0.95 // of the host's CPUs, steal included
	serverFull = 0.95 // of one CPU: servers have one thread that counts
	deviceFull = 0.90
	// A client whose engine says "cpu" may mean the machine's: below this many CPUs of
	// its own it does.
	clientFull = 0.80
	// muchOfOthers is the share of the host's CPUs from which on others are mentioned.
	muchOfOthers = 0.25
)

// Limit is which resource limited a cell.
type Limit struct {
	What string `json:"what"` // one of the Limit… constants, "" if there is no run
	// Text says it in words with the numbers.
	Text string `json:"text"`
	// Emulated: the CPUs of the guests were the limit and were emulated (TCG), so the
	// figures are of the emulation, not of the storage.
	Emulated bool `json:"emulated,omitempty"`
	// Others: the host's CPUs were the limit, and programs outside the experiment used a
	// good part of them.
	Others bool `json:"others,omitempty"`

	host float64 // 0..1 of the host's CPUs, steal included
}

// short names the limit in a table.
func (l Limit) short() string {
	name := map[string]string{
		LimitGuestCPU: "guests' CPUs", LimitHostCPU: "host's CPUs", LimitServerCPU: "server's CPU", LimitClientCPU: "clients' CPU",
		LimitDevice: "device", LimitRate: "rate asked for", LimitLatency: "time of an I/O",
	}[l.What]
	if l.Emulated {
		name += " (TCG)"
	}
	return name
}

// use is the mean use of all resources over the runs of a cell.
type use struct {
	client       string
	tcg          bool
	guest        float64 // 0..1; CPUs of host clients
	host, steal  float64
	cpus         int
	qemu         float64 // CPUs
	watched      float64 // CPUs of all processes of the experiment, this one included
	server       float64 // CPUs of the busiest server
	serverName   string
	device       float64
	deviceName   string
	bound        map[string]float64 // share of the nodes that say so
	meanNS, iops float64
}

func limitOf(client, accel string, runs []*Run) Limit {
	if len(runs) == 0 {
		return Limit{}
	}
	u := newUse(client, accel, runs)
	l := u.limit()
	l.host = u.host
	if others := u.others(); others > muchOfOthers*float64(u.cpus) {
		l.Others = l.What == LimitHostCPU
		l.Text += fmt.Sprintf("; programs outside the experiment and the kernel's own threads used %.1f of %d CPUs", others, u.cpus)
	}
	if u.steal > 0.1 {
		l.Text += fmt.Sprintf("; the host's own hypervisor took %s of its CPUs away (steal)", percent(u.steal))
	}
	return l
}

func newUse(client, accel string, runs []*Run) *use {
	u := &use{client: client, tcg: accel == "tcg" && client != spec.ClientHost, bound: map[string]float64{}}
	nodes, each := 0, 1/float64(len(runs))
	servers, devices := map[string]float64{}, map[string]float64{}
	for _, run := range runs {
		h := &run.Host
		u.cpus = max(u.cpus, h.CPUs)
		u.host += each * (h.Busy + h.Steal)
		u.steal += each * h.Steal
		for _, p := range h.Processes {
			u.watched += each * p.CPUs
			switch class(p.Name) {
			case "qemu":
				u.qemu += each * p.CPUs
			case "server":
				servers[p.Name] += each * p.CPUs
			}
		}
		for _, d := range h.Devices {
			devices[d.Name] += each * d.Utilization
		}
		nodes += u.addNodes(run)
	}
	if nodes > 0 {
		u.guest /= float64(nodes)
		for k := range u.bound {
			u.bound[k] /= float64(nodes)
		}
	}
	u.serverName, u.server = highest(servers)
	u.deviceName, u.device = highest(devices)
	return u
}

// addNodes adds what the nodes say of themselves and returns how many did.
func (u *use) addNodes(run *Run) int {
	nodes := 0
	for _, n := range run.Nodes {
		if n.Result == nil {
			continue
		}
		nodes++
		u.guest += n.Result.CPUBusy
		u.bound[n.Result.Bound]++
		for _, w := range n.Window {
			u.meanNS += w.Lat.Mean * w.IOPS
			u.iops += w.IOPS
		}
	}
	return nodes
}

// highest returns the largest entry; of equal ones the first by name.
func highest(m map[string]float64) (name string, value float64) {
	for k, v := range m {
		if v > value || v == value && (name == "" || k < name) {
			name, value = k, v
		}
	}
	return name, value
}

// limit picks the resource that was used up, the one nearest to the jobs first: what
// waits for it leaves the others idle.
func (u *use) limit() Limit {
	switch {
	case u.bound["rate"] > 0.5:
		return Limit{What: LimitRate, Text: "the rate or think time that the jobs ask for was the limit"}
	case u.client != spec.ClientHost && (u.guest >= guestFull || u.bound["cpu"] > 0.5):
		return Limit{What: LimitGuestCPU, Text: fmt.Sprintf("the guests' CPUs were the limit (%s busy%s)", percent(u.guest), u.emulated()), Emulated: u.tcg}
	case u.host >= hostFull && u.tcg && u.qemu > 0.5*u.host*float64(u.cpus):
		return Limit{What: LimitGuestCPU, Text: fmt.Sprintf("the host's CPUs were the limit, spent on emulating the guests' (TCG: %s busy, QEMU used %.1f of %d CPUs)", percent(u.host), u.qemu, u.cpus), Emulated: true}
	case u.host >= hostFull:
		return Limit{What: LimitHostCPU, Text: fmt.Sprintf("the host's CPUs were the limit (%s busy%s)", percent(u.host), u.users())}
	case u.client == spec.ClientHost && u.bound["cpu"] > 0.5 && u.guest < clientFull:
		return Limit{What: LimitHostCPU, Text: fmt.Sprintf("the host's CPUs were the limit, as the clients saw it (%s busy over the whole run%s)", percent(u.host), u.users())}
	case u.client == spec.ClientHost && u.bound["cpu"] > 0.5:
		return Limit{What: LimitClientCPU, Text: fmt.Sprintf("the clients' own CPU was the limit (%.2f CPUs each)", u.guest)}
	case u.server >= serverFull:
		return Limit{What: LimitServerCPU, Text: fmt.Sprintf("%s was the limit (%.2f CPUs)", u.serverName, u.server)}
	case u.device >= deviceFull:
		return Limit{What: LimitDevice, Text: fmt.Sprintf("the device %s was the limit (%s busy)", u.deviceName, percent(u.device))}
	case u.client == spec.ClientHost && u.bound["device"] > 0.5:
		return Limit{What: LimitDevice, Text: "the device below was the limit, as the clients saw it"}
	}
	return Limit{What: LimitLatency, Text: "nothing was used up (" + u.idle() + "): the time of each I/O" + u.mean() + " was the limit at this depth"}
}

func (u *use) emulated() string {
	if u.tcg {
		return ", emulated: TCG"
	}
	return ""
}

// others are the CPUs that nothing of the experiment used.
func (u *use) others() float64 { return (u.host-u.steal)*float64(u.cpus) - u.watched }

func (u *use) users() string {
	var parts []string
	if u.qemu > 0 {
		parts = append(parts, fmt.Sprintf("QEMU used %.1f of %d CPUs", u.qemu, u.cpus))
	}
	if u.server > 0 {
		parts = append(parts, fmt.Sprintf("%s %.1f", u.serverName, u.server))
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + strings.Join(parts, ", ")
}

// idle lists how far each resource was from its end.
func (u *use) idle() string {
	parts := []string{"the host's CPUs " + percent(u.host)}
	if u.client != spec.ClientHost {
		parts = append(parts, "the guests' "+percent(u.guest))
	}
	if u.serverName != "" {
		parts = append(parts, fmt.Sprintf("%s %.2f CPUs", u.serverName, u.server))
	}
	if u.deviceName != "" {
		parts = append(parts, u.deviceName+" "+percent(u.device))
	}
	return strings.Join(parts, ", ")
}

func (u *use) mean() string {
	if u.iops == 0 || u.meanNS == 0 {
		return ""
	}
	return " (mean " + duration(u.meanNS/u.iops) + ")"
}

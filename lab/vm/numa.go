package vm

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeCPUs are the CPUs that a placement ties the guest to, nil for any.
func (h hostFiles) nodeCPUs(numa string) (*unix.CPUSet, error) {
	node, _, on, err := placement(numa)
	if err != nil || !on {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(h.sys, nodeFolder, fmt.Sprintf("node%d", node), "cpulist"))
	if err != nil {
		return nil, fmt.Errorf("NUMA node %d: %w", node, err)
	}
	list := strings.TrimSpace(string(text))
	if list == "" {
		return nil, fmt.Errorf("NUMA node %d has no CPUs: give a guest's CPUs a node that has, numa=CPU:MEMORY", node)
	}
	return parseCPUs(list)
}

// parseCPUs reads a list such as 0-3,8.
func parseCPUs(list string) (*unix.CPUSet, error) {
	var set unix.CPUSet
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, errA := strconv.Atoi(low)
		b, errB := strconv.Atoi(high)
		if errA != nil || errB != nil || a < 0 || b < a || b >= len(set)*64 {
			return nil, fmt.Errorf("CPU list %q: want numbers and ranges such as 0-3,8", list)
		}
		for i := a; i <= b; i++ {
			set.Set(i)
		}
	}
	return &set, nil
}

// nodeFolder of sysfs has the NUMA nodes.
const nodeFolder = "devices/system/node"

// lacksNode says what the nodes of a placement lack.
func (h hostFiles) lacksNode(numa string) []string {
	cpu, memory, on, err := placement(numa)
	if err != nil || !on {
		return nil
	}
	return slices.Concat(h.nodeWith(cpu, "CPUs", "has_cpu"), h.nodeWith(memory, "memory", "has_memory"))
}

// nodeWith says why a node does not have what it is to give, which a file of sysfs
// lists the nodes of.
func (h hostFiles) nodeWith(node int, what, file string) []string {
	dir := filepath.Join(h.sys, nodeFolder)
	list := ""
	if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
		list = strings.TrimSpace(string(text))
	}
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("node%d", node))); err != nil {
		return []string{fmt.Sprintf("this host has no NUMA node %d: those with %s are %s", node, what, cmp.Or(list, "not known"))}
	}
	set, err := parseCPUs(list)
	if list != "" && (err != nil || set.IsSet(node)) {
		return nil
	}
	return []string{fmt.Sprintf("NUMA node %d of this host has no %s: those that have are %s: set numa=CPU:MEMORY", node, what, cmp.Or(list, "not known"))}
}

package vm

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeCPUs are the CPUs that a placement ties the guest to, nil for any.
func nodeCPUs(numa string) (*unix.CPUSet, error) {
	node, _, on, err := placement(numa)
	if err != nil || !on {
		return nil, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/devices/system/node/node%d/cpulist", node))
	if err != nil {
		return nil, fmt.Errorf("NUMA node %d: %w", node, err)
	}
	return parseCPUs(strings.TrimSpace(string(text)))
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

// lacksNode says which node of a placement the host has not.
func lacksNode(numa string) []string {
	cpu, memory, on, err := placement(numa)
	if err != nil || !on {
		return nil
	}
	for _, node := range []int{cpu, memory} {
		if _, err := os.Stat(fmt.Sprintf("/sys/devices/system/node/node%d", node)); err != nil {
			return []string{fmt.Sprintf("this host has no NUMA node %d", node)}
		}
	}
	return nil
}

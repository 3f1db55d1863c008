package spec

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vmdisk/vmdisk/bench/jobfile"
	"github.com/vmdisk/vmdisk/diskurl"
)

// unset is how a value is written that leaves the choice to QEMU.
const unset = "default"

// choice is an axis with a closed set of values.
func choice(name, help string, p func(*Setup) *string, values ...string) axis {
	return axis{
		name: name, help: help, form: strings.Join(values, ", "),
		set: func(s *Setup, value string) error {
			if !slices.Contains(values, value) {
				return noneOf(value, values)
			}
			*p(s) = value
			return nil
		},
		get: func(s *Setup) string { return *p(s) },
	}
}

// switched is an axis that is on or off.
func switched(name, help string, p func(*Setup) *bool) axis {
	return axis{
		name: name, help: help, form: "on, off",
		set: func(s *Setup, value string) (err error) {
			*p(s), err = onOff(value)
			return err
		},
		get: func(s *Setup) string {
			if *p(s) {
				return "on"
			}
			return "off"
		},
	}
}

func onOff(value string) (bool, error) {
	switch value {
	case "on", "true", "yes":
		return true, nil
	case "off", "false", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", value)
}

// size is an axis of bytes; 0 is QEMU's or the format's default.
func size(name, help string, p func(*Setup) *int64, check func(n int64) error) axis {
	return axis{
		name: name, help: help, form: "SIZE, " + unset,
		set: func(s *Setup, value string) (err error) {
			*p(s) = 0
			if value == unset {
				return nil
			}
			n, err := diskurl.ParseSize(value)
			if err == nil {
				err = check(n)
			}
			if err == nil {
				*p(s) = n
			}
			return err
		},
		get: func(s *Setup) string {
			if *p(s) == 0 {
				return unset
			}
			return diskurl.FormatSize(*p(s))
		},
	}
}

func checkCluster(n int64) error {
	if n < 512 || n > 2<<20 || n&(n-1) != 0 {
		return fmt.Errorf("%d is no cluster size: want a power of two from 512 to 2M, or %s", n, unset)
	}
	return nil
}

func checkCache(n int64) error {
	if n < 4<<10 || n > 64<<30 {
		return fmt.Errorf("%s is no cache size: want 4K to 64G, or %s", diskurl.FormatSize(n), unset)
	}
	return nil
}

// number reads a number from low to high.
func number(value string, low, high int64) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("%q is no number from %d to %d", value, low, high)
	}
	return n, nil
}

var pollAxis = axis{
	name: "poll-max-ns", form: "0 to 1000000000, " + unset,
	help: "how long an iothread polls for new requests before it sleeps, in ns; 0: not at all",
	set: func(s *Setup, value string) (err error) {
		s.PollMaxNS = -1
		if value != unset {
			s.PollMaxNS, err = number(value, 0, 1e9)
		}
		return err
	},
	get: func(s *Setup) string {
		if s.PollMaxNS < 0 {
			return unset
		}
		return strconv.FormatInt(s.PollMaxNS, 10)
	},
}

var queuesAxis = axis{
	name: "queues", form: "1 to 1024, " + unset, help: "queues of the guest's device",
	set: func(s *Setup, value string) (err error) {
		var n int64
		if value != unset {
			n, err = number(value, 1, 1024)
		}
		s.Queues = int(n)
		return err
	},
	get: func(s *Setup) string {
		if s.Queues == 0 {
			return unset
		}
		return strconv.Itoa(s.Queues)
	},
}

var numaPattern = regexp.MustCompile(`^[0-9]{1,4}(:[0-9]{1,4})?$`)

var numaAxis = axis{
	name: "numa", form: "off, NODE, CPU:MEMORY",
	help: "host NUMA nodes that a guest's CPUs and memory are bound to: 0 is 0:0, 0:1 has its memory far away",
	set: func(s *Setup, value string) error {
		switch {
		case value == "off":
		case !numaPattern.MatchString(value):
			return fmt.Errorf("%q is neither off nor node numbers such as 0 or 0:1 (CPUs:memory)", value)
		case !strings.Contains(value, ":"):
			value += ":" + value
		}
		s.NUMA = value
		return nil
	},
	get: func(s *Setup) string { return s.NUMA },
}

// asJob is the value that leaves an option to the job file.
const asJob = "job"

// jobAxis is an axis that is an option of the job file.
func jobAxis(name, help string, p func(*Setup) *string) axis {
	return axis{
		name: name, help: help + "; " + asJob + ": as the job file has it", form: "as fio reads it, " + asJob,
		set: func(s *Setup, value string) error {
			*p(s) = ""
			if value == asJob {
				return nil
			}
			if err := jobfile.CheckOption(name, value); err != nil {
				return err
			}
			*p(s) = strings.TrimSpace(value)
			return nil
		},
		get: func(s *Setup) string {
			if *p(s) == "" {
				return asJob
			}
			return *p(s)
		},
	}
}

// backings are the values of the axis that have no argument.
var backings = []string{
	"copy", "sparse", "falloc", "full", "reflink", "overlay", "loop", "tmpfs",
	"lvm", "lvm-snapshot", "lvm-thin", "zvol", "zvol-clone", "device",
}

var backingAxis = axis{
	name: "backing", form: strings.Join(backings, ", ") + ", device:PATH[;PATH…], url:URL",
	help: "where a node's disk lies: copy, reflink, overlay, loop, tmpfs, lvm… and zvol… hold what the golden disk holds, " +
		"sparse, falloc (reserved) and full (written with zeros) are new, with the golden disk's file system if it has one; device is a block device that is given (devices:), " +
		"its content is lost; url any disk URL, for host clients",
	set: func(s *Setup, value string) error {
		s.Backing = value
		if slices.Contains(backings, value) {
			return nil
		}
		if paths, ok := strings.CutPrefix(value, "device:"); ok {
			return checkDevices(strings.Split(paths, ";"))
		}
		if u, ok := strings.CutPrefix(value, "url:"); ok {
			_, err := diskurl.Parse(u)
			return err
		}
		return noneOf(value, append(slices.Clone(backings), "device:PATH", "url:URL"))
	},
	get: func(s *Setup) string { return s.Backing },
}

var pciAddress = regexp.MustCompile(`^[0-9a-fA-F]{4}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)

// checkDevices checks paths of block devices and PCI addresses.
func checkDevices(paths []string) error {
	for i, p := range paths {
		switch {
		case pciAddress.MatchString(p):
		case !strings.HasPrefix(p, "/") || path.Clean(p) != p:
			return fmt.Errorf("device %q: want a path such as /dev/sdx, or a PCI address such as 0000:44:00.0", p)
		}
		if slices.Contains(paths[:i], p) {
			return fmt.Errorf("device %s is given twice: each node needs one of its own", p)
		}
	}
	return nil
}

var filterAxis = axis{
	name: "filter", form: "none, [NODE@]FILTER[:KEY=VALUE,…] …", whole: true,
	help: "filters of vmdisk over the disk, as serve --filter takes them, outermost first, with spaces between; " +
		"b@delay:write=2s is for node b alone",
	set: func(s *Setup, value string) error {
		s.Filters = ""
		if value == "none" {
			return nil
		}
		words := strings.Fields(value)
		if len(words) == 0 {
			return fmt.Errorf("no filter: want none or NAME[:KEY=VALUE,…]")
		}
		for _, w := range words {
			if err := checkFilter(w); err != nil {
				return err
			}
		}
		s.Filters = strings.Join(words, " ")
		return nil
	},
	get: func(s *Setup) string {
		if s.Filters == "" {
			return "none"
		}
		return s.Filters
	},
}

// checkFilter checks one word of the filter axis.
func checkFilter(word string) error {
	node, filter, ok := strings.Cut(word, "@")
	if !ok || strings.Contains(node, ":") { // an @ of a parameter's value
		filter = word
	} else if len(node) != 1 || node[0] < 'a' || node[0] > 'z' {
		return fmt.Errorf("filter %q: want NODE@FILTER with a node's name, a to z", word)
	}
	f, err := diskurl.ParseFilter(filter)
	if err != nil {
		return err
	}
	var names []string
	for _, known := range diskurl.Filters() {
		names = append(names, known.Name)
	}
	if !slices.Contains(names, f.Name) {
		return fmt.Errorf("filter %w", noneOf(f.Name, names))
	}
	return nil
}

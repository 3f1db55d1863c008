package fault

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/vmdisk/vmdisk/disk"
)

// Config is the filter's parameters; see the package comment.
type Config struct {
	Setting            // error, error-rate, error-file
	Each    []OpConfig // error-OP, error-OP-rate, error-OP-file
	Ops     Op         // op; 0 means all
	// From and To are range; both 0 means the whole disk.
	From, To int64
	After    int64 // after
	Count    int64 // count; 0 means no bound
	Seed     uint64
}

// Setting is one error, how often it happens, and the file that allows it.
type Setting struct {
	Error string   // "" means EIO, or Config's for a single operation
	Rate  *float64 // nil: see error-rate
	File  string
}

// OpConfig is the setting for one kind of operation.
type OpConfig struct {
	Op Op
	Setting
}

// ErrorNames lists the errors that parameters may name.
func ErrorNames() []string { return slices.Sorted(maps.Keys(errnos)) }

var errnos = map[string]syscall.Errno{
	"EACCES": syscall.EACCES, "EAGAIN": syscall.EAGAIN, "EBADMSG": syscall.EBADMSG, "EBUSY": syscall.EBUSY,
	"ECONNRESET": syscall.ECONNRESET, "EINTR": syscall.EINTR, "EINVAL": syscall.EINVAL, "EIO": syscall.EIO,
	"ENODEV": syscall.ENODEV, "ENOLINK": syscall.ENOLINK, "ENOMEM": syscall.ENOMEM, "ENOSPC": syscall.ENOSPC,
	"ENOTSUP": syscall.ENOTSUP, "EDQUOT": syscall.EDQUOT, "EFBIG": syscall.EFBIG, "EOVERFLOW": syscall.EOVERFLOW,
	"EPERM": syscall.EPERM, "EROFS": syscall.EROFS, "ESHUTDOWN": syscall.ESHUTDOWN, "ESTALE": syscall.ESTALE,
	"ETIMEDOUT": syscall.ETIMEDOUT,
}

// ParseOps reads kinds of operations joined by "+"; nbdkit's pread and pwrite
// are known too.
func ParseOps(s string) (Op, error) {
	var ops Op
	for name := range strings.SplitSeq(s, "+") {
		if name == "pread" || name == "pwrite" {
			name = name[1:]
		}
		i := slices.Index(opNames, name)
		if i < 0 {
			return 0, fmt.Errorf("operation %q is none of %s", name, strings.Join(opNames, ", "))
		}
		ops |= 1 << i
	}
	return ops, nil
}

// Open is New for parameters instead of rules. It fails, leaving child alone,
// where they make no sense.
func Open(child *disk.Disk, cfg Config) (*disk.Disk, error) {
	faults, err := cfg.Faults()
	if err != nil {
		return nil, err
	}
	return New(child, faults...), nil
}

// Faults turns the parameters into rules.
func (c *Config) Faults() ([]Fault, error) {
	if c.From < 0 || c.To < c.From || c.After < 0 || c.Count < 0 {
		return nil, fmt.Errorf("range %d-%d, after %d, count %d: they must not be negative, nor a range end before it begins",
			c.From, c.To, c.After, c.Count)
	}
	b := c.bounds()
	rest, single := c.Ops, false
	if rest == 0 {
		rest = Any
	}
	var faults []Fault
	for i, each := range c.Each {
		if each.Error == "" {
			each.Error = c.Error
		}
		if each.File == "" {
			each.File = c.File
		}
		if each.Rate == nil {
			each.Rate = c.Rate
		} else {
			single = true
		}
		fault, err := each.fault(each.Op&rest, c.Seed+uint64(i)+1, b)
		if err != nil {
			return nil, err
		}
		faults = append(faults, fault)
		rest &^= each.Op
	}
	if single && c.Rate == nil {
		return faults, nil
	}
	fault, err := c.fault(rest, c.Seed, b)
	return append(faults, fault), err
}

// bounds are the rules that all faults share: where is asked before the rate,
// often after it, since that counts.
type bounds struct{ where, often Rule }

func (c *Config) bounds() bounds {
	b := bounds{Always, Always}
	if c.To > 0 {
		b.where = Within(c.From, c.To-c.From)
	}
	if c.After > 0 {
		b.often = After(c.After)
	}
	if c.Count > 0 {
		b.often = And(b.often, First(c.Count))
	}
	return b
}

func (s *Setting) fault(ops Op, seed uint64, b bounds) (Fault, error) {
	name := s.Error
	if name == "" {
		name = "EIO"
	}
	errno, ok := errnos[strings.ToUpper(name)]
	if !ok {
		return Fault{}, fmt.Errorf("error %q is none of %s", name, strings.Join(ErrorNames(), ", "))
	}
	rules := []Rule{On(ops), b.where}
	if s.File != "" {
		rules = append(rules, WhileExists(s.File))
	}
	if s.Rate != nil {
		if !(*s.Rate >= 0 && *s.Rate <= 1) {
			return Fault{}, fmt.Errorf("rate %v is not between 0 and 1", *s.Rate)
		}
		rules = append(rules, Rate(*s.Rate, seed))
	}
	return Fault{When: And(append(rules, b.often)...), Err: errno}, nil
}

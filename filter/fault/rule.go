package fault

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmdisk/vmdisk/disk"
)

// Op is a set of kinds of operations.
type Op uint

// The kinds of operations. The first are in the order of disk.Kind.
const (
	Read Op = 1 << iota
	Write
	Zero
	Trim
	Flush
	Extents
	Cache

	Any = Read | Write | Zero | Trim | Flush | Extents | Cache
)

var opNames = []string{"read", "write", "zero", "trim", "flush", "extents", "cache"}

// String returns the names, joined by "+".
func (o Op) String() string {
	var names []string
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "+")
}

// Call is an operation as a Rule sees it. Flush has Off -1 and Len 0.
type Call struct {
	Op       Op // one kind
	Off, Len int64
	Flags    disk.Flags
}

// Rule says whether a call is meant. Rules compose; those that count do so only
// for calls that they are asked about, so the order within And matters: And(On(Write),
// After(3)) spares three writes, And(After(3), On(Write)) three calls of any
// kind. All rules are safe for concurrent use.
type Rule func(Call) bool

// Always matches every call.
func Always(Call) bool { return true }

// On matches calls of the kinds in ops.
func On(ops Op) Rule { return func(c Call) bool { return c.Op&ops != 0 } }

// Within matches calls that touch [off, off+n).
func Within(off, n int64) Rule {
	return func(c Call) bool { return c.Off >= 0 && c.Off < off+n && off < c.Off+c.Len }
}

// WithFlags matches calls that have all of these flags.
func WithFlags(f disk.Flags) Rule { return func(c Call) bool { return c.Flags&f == f } }

// After matches all calls but the first n.
func After(n int64) Rule {
	var seen atomic.Int64
	return func(Call) bool { return seen.Add(1) > n }
}

// First matches the first n calls.
func First(n int64) Rule {
	var seen atomic.Int64
	return func(Call) bool { return seen.Add(1) <= n }
}

// Every matches each n-th call; n must be > 0.
func Every(n int64) Rule {
	var seen atomic.Int64
	return func(Call) bool { return seen.Add(1)%n == 0 }
}

// Rate matches a share p of all calls, 0 to 1, chosen at random; the choices are
// the same for the same seed and order of calls.
func Rate(p float64, seed uint64) Rule {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 0))
	return func(Call) bool {
		mu.Lock()
		defer mu.Unlock()
		return rnd.Float64() < p
	}
}

// WhileExists matches while there is a file of this name.
func WhileExists(path string) Rule {
	return func(Call) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
}

// And matches where all rules do; it asks them in order, up to the first that does not.
func And(rules ...Rule) Rule {
	return func(c Call) bool {
		for _, r := range rules {
			if !r(c) {
				return false
			}
		}
		return true
	}
}

// Or matches where a rule does; it asks them in order, up to the first that does.
func Or(rules ...Rule) Rule {
	return func(c Call) bool {
		for _, r := range rules {
			if r(c) {
				return true
			}
		}
		return false
	}
}

// Not matches where r does not.
func Not(r Rule) Rule { return func(c Call) bool { return !r(c) } }

// Switch is a rule that a test turns on and off.
type Switch struct{ on atomic.Bool }

// Set turns the switch.
func (s *Switch) Set(on bool) { s.on.Store(on) }

// Rule matches while the switch is on.
func (s *Switch) Rule(Call) bool { return s.on.Load() }

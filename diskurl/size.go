package diskurl

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

const sizeUnits = "KMGTPE"

// ParseSize reads a size of 0 bytes or more: decimal digits and an optional K,
// M, G, T, P or E, powers of 1024, each also as "KiB" or "kb"; a lone B means
// bytes. A fraction needs a unit: 1.5G.
func ParseSize(s string) (int64, error) {
	unit := int64(1)
	number := strings.TrimSuffix(strings.ToUpper(s), "B")
	number, hadI := strings.CutSuffix(number, "I")
	if n := len(number); n > 0 {
		if i := strings.IndexByte(sizeUnits, number[n-1]); i >= 0 {
			number, unit = number[:n-1], int64(1)<<(10*(i+1))
		}
	}
	if hadI && unit == 1 || number == "" {
		return 0, badSize(s)
	}
	whole, fraction, dotted := strings.Cut(number, ".")
	v, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || strings.HasPrefix(whole, "+") {
		return 0, badSize(s)
	}
	hi, lo := bits.Mul64(v, uint64(unit))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, fmt.Errorf("size %q is above %d bytes", s, int64(math.MaxInt64))
	}
	if !dotted {
		return int64(lo), nil
	}
	part, err := strconv.ParseFloat("0."+fraction, 64)
	extra := part * float64(unit)
	if err != nil || fraction == "" || unit == 1 || extra != math.Trunc(extra) {
		return 0, fmt.Errorf("size %q is not a whole number of bytes", s)
	}
	if int64(lo) > math.MaxInt64-int64(extra) {
		return 0, fmt.Errorf("size %q is above %d bytes", s, int64(math.MaxInt64))
	}
	return int64(lo) + int64(extra), nil
}

func badSize(s string) error {
	return fmt.Errorf("bad size %q: want a number of bytes, or one with K, M, G, T, P or E", s)
}

// FormatSize writes n exactly, with the largest unit that divides it.
func FormatSize(n int64) string {
	if n == 0 {
		return "0"
	}
	shift := min(bits.TrailingZeros64(uint64(n))/10, len(sizeUnits))
	if shift == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n>>(10*shift), 10) + sizeUnits[shift-1:shift]
}

// SizeText is FormatSize for people, with two decimals at most where they are exact: 1.5T, not 1536G.
// ParseSize reads it back.
func SizeText(n int64) string {
	for shift := 10 * len(sizeUnits); shift > 0; shift -= 10 {
		// No other fraction of a power of 1024 than a quarter has two decimals.
		quarter := int64(1) << (shift - 2)
		if n >= 4*quarter && n%quarter == 0 {
			quarters := n / quarter
			return strconv.FormatInt(quarters/4, 10) + [...]string{"", ".25", ".5", ".75"}[quarters%4] + sizeUnits[shift/10-1:shift/10]
		}
	}
	return FormatSize(n)
}

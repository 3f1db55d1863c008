package jobfile

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Amount is a number of bytes, or a share of the file's size.
type Amount struct {
	Bytes   int64
	Percent int64 // > 0: percent of the file; Bytes is then 0
}

// IsZero reports whether nothing was given.
func (a Amount) IsZero() bool { return a == Amount{} }

// Of returns the amount in bytes for a file of size bytes.
func (a Amount) Of(size int64) int64 {
	if a.Percent > 0 {
		return size/100*a.Percent + size%100*a.Percent/100
	}
	return a.Bytes
}

// String returns the amount as a job file writes it.
func (a Amount) String() string {
	if a.Percent > 0 {
		return fmt.Sprintf("%d%%", a.Percent)
	}
	return strconv.FormatInt(a.Bytes, 10)
}

// reader reads values under one job's kb_base.
type reader struct {
	strict bool
	kbBase int64 // 1024 or 1000
	warn   func(format string, a ...any)
}

var errNumber = errors.New("not a number")

// bytes reads an integer with a size suffix, or a percentage.
func (r *reader) amount(s string) (Amount, error) {
	v, suffix, err := r.number(s)
	if err != nil {
		return Amount{}, err
	}
	if strings.HasPrefix(suffix, "%") {
		if v < 0 || v > 100 {
			return Amount{}, fmt.Errorf("%d%% is not between 0%% and 100%%", v)
		}
		return Amount{Percent: v}, nil
	}
	mult, err := r.multiplier(s, suffix)
	if err != nil {
		return Amount{}, err
	}
	if v != 0 && (v > math.MaxInt64/mult || v < math.MinInt64/mult) {
		return Amount{}, fmt.Errorf("%s is too large", s)
	}
	return Amount{Bytes: v * mult}, nil
}

// int reads an integer with a size suffix.
func (r *reader) int(s string) (int64, error) {
	a, err := r.amount(s)
	if err == nil && a.Percent > 0 {
		return 0, fmt.Errorf("a percentage (%s) is not allowed here", s)
	}
	return a.Bytes, err
}

// number reads the digits and returns the rest in lower case.
func (r *reader) number(s string) (int64, string, error) {
	t := strings.TrimSpace(s)
	if strings.HasPrefix(t, "(") {
		v, err := evaluate(t, r.exprNumber)
		return int64(v), "", err
	}
	digits := len(t) - len(strings.TrimLeft(t, "+-"))
	base := 10
	isDigit := func(c byte) bool { return c >= '0' && c <= '9' }
	if strings.HasPrefix(strings.ToLower(t[digits:]), "0x") {
		base = 16
		digits += 2
		isDigit = func(c byte) bool { return isHex(c) }
	}
	start := digits
	for digits < len(t) && isDigit(t[digits]) {
		digits++
	}
	if digits == start {
		return 0, "", fmt.Errorf("%w: %q", errNumber, s)
	}
	num := strings.Replace(strings.ToLower(t[:digits]), "0x", "", 1)
	v, err := strconv.ParseInt(num, base, 64)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %q", errNumber, s)
	}
	return v, strings.ToLower(t[digits:]), nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

var powers = map[byte]int{'k': 1, 'm': 2, 'g': 3, 't': 4, 'p': 5}

// multiplier returns what a size suffix multiplies by. With kb_base=1024 fio
// reads k, kb as 1024 and KiB as 1000; kb_base=1000 swaps the two.
func (r *reader) multiplier(s, suffix string) (int64, error) {
	if r.strict && strings.TrimLeft(s, " \t") != s {
		// fio looks for the suffix from the first character of the value, meets a
		// blank and gives up: " 4k" is 4.
		return 1, nil
	}
	if suffix != "" && (suffix[0] == ' ' || suffix[0] == '\t') {
		suffix = strings.TrimSpace(suffix)
		if r.strict {
			return 1, nil
		}
		r.warn("fio reads %q without its unit; read here as %s", s, strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	}
	if i := strings.IndexAny(suffix, ":-,/"); i >= 0 {
		suffix = suffix[:i]
	}
	if suffix == "" || suffix == "b" {
		return 1, nil
	}
	return r.power(s, suffix)
}

// power is what a suffix of at least one letter multiplies by.
func (r *reader) power(s, suffix string) (int64, error) {
	pow := powers[suffix[0]]
	base := r.kbBase
	switch rest := suffix[1:]; {
	case pow > 0 && strings.HasPrefix(rest, "ib"):
		base = 2024 - r.kbBase
		if r.kbBase == 1024 {
			r.warn("fio reads %s as a power of 1000 (kb_base=1024 swaps KiB and kB); write %s, or set kb_base=1000",
				strings.TrimSpace(s), strings.TrimSuffix(strings.TrimSpace(s), s[len(s)-2:]))
		}
	case pow > 0 && (rest == "" || rest == "b"):
	case pow > 0 && r.strict:
	case r.strict:
		return 1, nil
	default:
		return 0, fmt.Errorf("%q has an unknown unit %q (k, m, g, t, p, or KiB and so on)", s, suffix)
	}
	mult := int64(1)
	for range pow {
		mult *= base
	}
	return mult, nil
}

// timeUnits are fio's, in microseconds.
var timeUnits = map[string]int64{
	"us": 1, "usec": 1, "ms": 1000, "msec": 1000, "s": 1e6, "sec": 1e6, "m": 60e6, "h": 3600e6, "d": 86400e6,
}

// duration reads a time; unit is what a bare number means.
func (r *reader) duration(s string, unit time.Duration) (time.Duration, error) {
	t := strings.TrimSpace(s)
	if strings.HasPrefix(t, "(") {
		v, err := evaluate(t, plainNumber)
		return time.Duration(v * float64(unit)), err
	}
	v, suffix, err := r.number(s)
	if err != nil {
		return 0, err
	}
	us := int64(unit / time.Microsecond)
	if suffix = strings.TrimSpace(suffix); suffix != "" {
		var ok bool
		if us, ok = timeUnits[suffix]; !ok && r.strict {
			us = 1 // fio multiplies by 1 and says nothing
		} else if !ok {
			return 0, fmt.Errorf("%q has an unknown unit of time (us, ms, s, m, h, d)", s)
		}
	}
	if v < 0 || v > math.MaxInt64/1000/us {
		return 0, fmt.Errorf("time %s is out of range", s)
	}
	return time.Duration(v*us) * time.Microsecond, nil
}

// bool reads 0 or 1; an empty value of a bare flag is handled by the caller.
func (r *reader) bool(s string) (bool, error) {
	v, err := strconv.ParseUint(strings.TrimSpace(s), 0, 32)
	if err != nil || v > 1 {
		return false, fmt.Errorf("%q is neither 0 nor 1", strings.TrimSpace(s))
	}
	return v == 1, nil
}

// enum returns the value of s among values. Unless strict, an unambiguous prefix
// is taken with a warning (old fio did so, and job files rely on it).
func (r *reader) enum(s string, values []string) (string, error) {
	s = strings.TrimSpace(s)
	var found []string
	for _, v := range values {
		if v == s {
			return v, nil
		}
		if s != "" && strings.HasPrefix(v, s) {
			found = append(found, v)
		}
	}
	if len(found) == 1 && !r.strict {
		r.warn("%q is short for %q (fio since 2.0.12 refuses it)", s, found[0])
		return found[0], nil
	}
	return "", fmt.Errorf("%q is not one of %s", s, strings.Join(values, ", "))
}

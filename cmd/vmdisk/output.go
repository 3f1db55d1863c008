package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskurl"
)

// writeJSON prints one JSON value, indented.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// aboutText is a size for people, with one decimal: what is exact is in --json.
func aboutText(n int64) string {
	if n == 0 {
		return "0"
	}
	value, unit := float64(n), ""
	for _, next := range []string{"K", "M", "G", "T", "P", "E"} {
		if value < 1023.95 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "" {
		return fmt.Sprintf("%d bytes", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + unit
}

// sizeText is a size for people: exact bytes, and in the largest unit that takes two decimals at most.
func sizeText(n int64) string {
	short := diskurl.SizeText(n)
	exact := fmt.Sprint(n)
	if short == exact {
		return exact + " bytes"
	}
	return fmt.Sprintf("%s (%s bytes)", short, exact)
}

// shownName is a disk as the user named it, unless that tells a ticket.
func shownName(given string, d *disk.Disk) string {
	if u, err := diskurl.Parse(given); err != nil || u.Scheme() == diskurl.SchemeHTTP || u.Scheme() == diskurl.SchemeHTTPS {
		return d.Name()
	}
	return given
}

// printable makes one line of a text, on which a terminal does not act: servers describe
// themselves, and files are named, as they like.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

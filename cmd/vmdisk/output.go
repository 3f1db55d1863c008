package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/vmdisk/vmdisk/diskurl"
)

// writeJSON prints one JSON value, indented.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// sizeText is a size for people: exact bytes, and in the largest whole unit.
func sizeText(n int64) string {
	short := diskurl.FormatSize(n)
	exact := fmt.Sprint(n)
	if short == exact {
		return exact + " bytes"
	}
	return fmt.Sprintf("%s (%s bytes)", short, exact)
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

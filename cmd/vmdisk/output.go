package main

import (
	"encoding/json"
	"fmt"
	"io"

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

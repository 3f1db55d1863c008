package server

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

var urlSchemes = []string{"file", "nbd", "http", "https"}

// parseTicketURL reads a ticket's url. As in the original, hosts write paths, sockets
// and the names of exports into it as they are: a percent sign, a blank or a # in one
// is a part of the name. Decoding it would open another image.
func parseTicketURL(text string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	scheme = strings.ToLower(scheme)
	if !ok || !slices.Contains(urlSchemes, scheme) {
		if !ok {
			scheme = ""
		}
		return nil, fmt.Errorf("Unsupported url scheme: %s", scheme) //nolint:staticcheck // the original's text, which clients see
	}
	if strings.ContainsRune(text, 0) {
		return nil, errors.New("a NUL byte")
	}
	after, authority := strings.CutPrefix(rest, "//")
	switch {
	case scheme == "file" && authority:
		_, path, _ := strings.Cut(after, "/") // the host is of no account
		return &url.URL{Scheme: scheme, Path: "/" + path}, nil
	case scheme == "file":
		return &url.URL{Scheme: scheme, Path: rest}, nil
	case scheme == "nbd" && authority:
		host, export, _ := strings.Cut(after, "/")
		return &url.URL{Scheme: scheme, Host: host, Path: "/" + export}, nil
	case scheme == "nbd":
		return &url.URL{Scheme: scheme, Opaque: rest}, nil
	}
	return url.Parse(text)
}

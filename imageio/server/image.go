package server

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
)

// imageKey tells the disks of tickets apart.
type imageKey struct {
	image string
	Access
}

// keyOf: all names of one file, and of one export of a server, are one image. Two disks
// of it would have locks of their own, and writers of one block of a server that can
// only write whole ones would undo each other's writes.
func keyOf(u *url.URL, a Access) imageKey {
	switch u.Scheme {
	case "file":
		a.Dirty = false // files have no bitmaps
		return imageKey{"file:" + realPath(u.Path), a}
	case "nbd":
		return imageKey{"nbd:" + nbdImage(u), a}
	case "http", "https":
		same := *u
		same.Host = hostKey(u.Hostname(), u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
		return imageKey{same.String(), a}
	}
	return imageKey{u.String(), a}
}

// nbdImage names an export in one way, with a NUL, which no URL has, between its parts.
func nbdImage(u *url.URL) string {
	where, export := u.Host, strings.TrimPrefix(u.Path, "/")
	if u.Opaque != "" {
		where, export, _ = strings.Cut(u.Opaque, ":exportname=")
	}
	path, unix := strings.CutPrefix(where, "unix:")
	switch {
	case u.Opaque != "" && unix && strings.HasPrefix(path, "@"):
		return "unix\x00" + path + "\x00" + export // the name of an abstract socket is no path
	case u.Opaque != "" && unix:
		return "unix\x00" + realPath(path) + "\x00" + export
	}
	server := url.URL{Host: where}
	return "tcp\x00" + hostKey(server.Hostname(), server.Port(), "10809") + "\x00" + export
}

// hostKey is a server's address, not looked up.
func hostKey(host, port, defaultPort string) string {
	if host == "" {
		host = "localhost"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	}
	if port = strings.TrimLeft(port, "0"); port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// realPath follows links as far as there is something.
func realPath(path string) string {
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		return followed
	}
	return filepath.Clean(path) // opening it will tell
}

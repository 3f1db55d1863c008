// Package client speaks oVirt's image transfer API: it reads and writes the
// image behind a ticket over HTTP or HTTPS, on several connections, and over the
// daemon's unix socket where the daemon turns out to run on this host.
//
// It is a leaf: driver/imageio makes a disk of it. The HTTP/1.1 it speaks is its
// own (conn.go), because bodies go straight between the socket and the caller's
// buffers or files.
package client

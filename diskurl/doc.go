// Package diskurl opens and creates disks by URL, and stacks filters on them.
// It is the only package that knows every driver, format and filter, each by a row of a
// table (protocol_*.go, format_*.go, filter_*.go; docs/extending.md); whoever
// serves or copies a disk is handed the *disk.Disk that comes out of here.
//
// The URLs:
//
//	/path  ./path  file:/path       local file or block device
//	FORMAT:URL                      a format over any disk, qcow2:nbd://host/disk; Options.Format
//	                                is another way to say it. raw: takes the bytes as they are
//	nbd://host[:port]/export        NBD over TCP (10809 by default)
//	nbds://host[:port]/export       NBD over TLS; never falls back to plain text
//	nbd+unix:///export?socket=PATH  NBD over a unix socket, nbds+unix with TLS
//	mem:SIZE                        RAM disk, sparse
//	null:SIZE                       reads zeros, discards writes
//	pattern:SIZE                    every 8 bytes hold their own offset; refuses other writes
//
// SIZE is a number of bytes with an optional K, M, G, T, P or E (powers of
// 1024).
//
// The format of a local file comes from its user, never from its content: a
// guest that can write to its disk could otherwise choose how the host reads
// it. A file that begins like a known image format is refused unless the format
// is given.
package diskurl

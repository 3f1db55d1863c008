// Package nbd is the wire codec of the NBD protocol: every message of the fixed
// newstyle handshake and of the transmission phase, encoded and decoded in both
// directions. It opens no sockets and holds no policy: which option is allowed
// when, and what a request does, is decided by nbd/server and nbd/client.
//
// Encoders append to a byte slice and allocate nothing when it has room.
// Decoders read from a byte slice that the caller bounded; they never read past
// it, never allocate by a count that came from the wire without checking it
// against the bytes at hand, and never panic. Sections named in the comments
// are those of doc/proto.md of the NetworkBlockDevice/nbd project. All integers
// on the wire are big-endian.
//
// The transmission phase has three header formats, see [Mode].
package nbd

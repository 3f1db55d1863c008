// Package client is the client side of an NBD session: the handshake and a
// pipeline of requests over one or several connections. It knows nothing of
// disks and has no policy about lost connections: a broken connection ends the
// whole Client, and everything in flight fails with [ErrDisconnected]. Section
// names in comments are those of doc/proto.md of NetworkBlockDevice/nbd.
//
// [Dial] negotiates the best the server offers: extended headers, else
// structured replies, else simple ones; GO with block sizes, else EXPORT_NAME.
// With a TLS configuration the session is encrypted or does not come about.
// Nothing that the server says is trusted: lengths are checked against the
// request before a byte is stored, counts before memory is taken.
//
// Any number of requests may be in flight. A [Request] is started by
// [Client.Start] and ends with exactly one call of its Completer; the methods
// ReadAt, WriteAt and so on are the same with waiting, for ordinary use.
// Requests that wait for the socket are sent together by one system call, and
// replies are received together. The payload of a large read goes straight into
// the caller's buffer and that of a write straight out of it; what arrives
// together with a reply header (up to 64 KiB of small replies, 1 KiB of large
// ones) is copied once. No request allocates memory.
package client

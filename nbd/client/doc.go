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
// the caller's buffer and that of a write of more than 16 KiB straight out of
// it; small ones, and what arrives together with a header, are copied once,
// which costs less than a system call or an iovec of their own. No request
// allocates memory.
//
// A [Pipe] is a connection with one owner, who sends and receives without other
// goroutines: the fastest way, at a third to half of the CPU per request.
package client

// Package server serves disks over NBD: fixed newstyle negotiation with TLS,
// structured and extended replies, metadata contexts, and a transmission phase
// built for a low cost per request.
//
// How a request travels. A small set of polling goroutines (see poller) waits
// for readable connections; an idle connection has no goroutine and no buffer.
// Whoever got the event serves the connection until its socket is empty: every
// complete request in the receive buffer is decoded; small reads and writes are
// done inline by [disk.Disk.TryRead] and [disk.Disk.TryWrite], straight into the
// reply buffer; large reads leave by sendfile, and large writes to a file arrive
// by splice; the replies leave in one write. What would block, and every other
// command, becomes a task on a worker goroutine, which answers by itself.
//
// A TLS connection has a goroutine of its own instead, since Go's TLS cannot be
// polled; it holds no buffer of this package while idle.
//
// Memory is bounded by one budget for all connections (see memory). A client
// that stops reading its replies, or stops in the middle of a write, loses its
// connection when others wait for the memory it holds, and never otherwise.
//
// What a client sees of an error is its number and a short text without local
// paths; the whole error goes to Config.Log.
package server

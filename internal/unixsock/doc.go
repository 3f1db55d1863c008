// Package unixsock is the one place that makes listening unix sockets, and so the one
// place for the rules about who may connect to them.
//
// A path has its owner and permissions before anybody can connect. One that a crashed
// server left is replaced, one that answers is not, and however many servers start at
// once, one gets it. What is removed in the end is the server's own socket and not
// that of a successor.
//
// An abstract name has no permissions: every process of the network namespace can
// connect. It is refused unless something else checks the peer.
package unixsock

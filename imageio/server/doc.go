// Package server is the image transfer service of oVirt: tickets installed over
// a control socket, images read and written over HTTP by whoever knows a
// ticket's id.
//
// Three services share the tickets: remote (TCP, TLS), local (unix socket) and
// control (unix socket or TCP on localhost). The HTTP/1.1 reader and writer are
// this package's own (wire.go, response.go), because the protocol's clients
// depend on details that a general server smooths over: a content-length on a
// 204, the connection's time limit growing once a ticket is accepted, the
// answer to a request line that is too long, sendfile on unix sockets, and what
// happens to the rest of a body that was refused.
//
// The server is handed an [Opener] for the disks behind tickets and never
// imports a driver.
package server

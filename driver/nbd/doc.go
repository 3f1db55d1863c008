// Package nbd is the driver of nbd:// disks: an export of an NBD server, over
// one connection or, where the server promises consistency among them, several.
//
// # Lost connections
//
// By default the driver reconnects, with growing pauses, for up to
// Reconnect.Limit; requests wait meanwhile. An acknowledged write is not durable
// before a flush, so a server that comes back may have lost it (its host died)
// and cannot be asked. The driver therefore keeps every write, zero and trim
// since the last successful flush and, before anything else goes to the new
// connection, repeats all of them in their order, acknowledged or not.
//
// This costs a copy of all data that is written between two flushes (about 0.1 ms
// of CPU for each MiB) and up to ReplayLimit bytes of memory. When the limit is
// exceeded, or with NoReplay, a lost connection makes the next flush fail, and
// every later one: what was lost cannot be known. A server that comes back with
// another size, other flags or other block sizes is refused.
//
// NBD cannot tell whether a request of a dead connection is still being worked
// on by the server; a server must not do that (a killed one does not).
//
// # Speed
//
// A queue ([disk.Queuer]) takes one of the connections for itself, while there
// are more than one, and sends and receives on its owner's thread; else it
// starts requests in the pipeline that all share. Neither costs a goroutine or an
// allocation per operation. [Driver.WriteFromFile] lets the
// kernel move data from a file into the socket.
package nbd

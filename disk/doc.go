// Package disk is the contract between what stores a virtual disk and what
// uses one. It is two-sided, like database/sql and log/slog:
//
//   - implementers write a small [Driver]: a back end (file, NBD server, RAM)
//     or a filter (delay, fault, copy-on-write);
//   - callers, and every filter or format driver for its child, hold the
//     concrete [*Disk].
//
// Disk is the only place that checks range, alignment and flags, emulates what
// the layer below lacks (zeroing by writes, FUA by a flush, unaligned I/O by
// read-modify-write), splits requests to the driver's limits, adds error
// context and traces. A Driver may therefore rely on every request being in
// range, aligned to Info.Min, no longer than Info.MaxIO, and carrying only the
// flags its Info promises to understand.
//
// Capabilities are values in [Info], not types: a filter copies and edits its
// child's Info. The optional interfaces ([Inliner], [Vectorer], [FileRanger],
// [Queuer]) exist for speed alone; losing one is slower, never wrong.
//
// The package imports the standard library only.
package disk

// Package diskcopy copies, compares and checksums virtual disks in parallel.
//
// [Copy] is driven by the source's extents: holes are never read, and data is
// searched for runs of zeros. Workers pull one request at a time from the
// planner, so memory is bounded by Options.QueueDepth × Options.RequestSize
// however large the disk, and the map of the source is read as the copy goes
// on, never as a whole.
//
// How zeros reach the target is decided by what the target does and not by
// what it claims; see [Strategy]. Where both disks lie on one file system that
// shares blocks, the copy is a reflink. A target in the page cache is written out,
// and its memory given back, while the copy goes on.
//
// The package is handed two [disk.Disk] and never opens, closes, creates or
// removes one, its journal excepted.
package diskcopy

// Package volatile keeps what is written in RAM until a flush, or a write with
// FUA, passes it down: the write cache of a disk, made as forgetful as it may
// be. What was not flushed is lost when the process is killed and also when the
// disk is closed, on purpose. A server with this filter that dies is a host that
// lost power; data that a client was promised and misses afterwards was lost by
// whoever did not pass the flush on. It has no parameters.
//
//	--filter volatile
//
//	vmdisk serve disk.img --nbd unix:/run/d.sock --filter volatile
//
// Only a successful Flush makes earlier writes durable; a write with FUA does so
// for itself alone. Zeroes of up to 64 MiB are held back like writes; longer ones
// and all trims go down at once, which the contract allows. The RAM used is what
// was written since the last flush.
//
// Writes reach the disk below in blocks of 4 KiB (or its own, if larger), in
// order of offset, runs joined.
package volatile

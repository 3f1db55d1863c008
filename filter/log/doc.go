// Package log writes a line to a file when an operation begins and one when it
// ends:
//
//	--filter log:logfile=FILE[,logappend=on]
//
//	logfile    where the lines go; /dev/stderr works
//	logappend  add to the file instead of replacing it
//
// The names are those of nbdkit's log filter, and the lines are much like its:
//
//	2026-03-01T10:00:00.000017Z write id=7 offset=0x1000 count=0x200 fua
//	2026-03-01T10:00:00.000391Z ...write id=7 took=374us
//	2026-03-01T10:00:00.000401Z read id=8 offset=0x0 count=0x200
//	2026-03-01T10:00:00.000406Z ...read id=8 took=5us error="input/output error"
//
// The id joins the two lines; operations that ran when a process was killed have
// only the first. Each line is written at once, by one write. If that fails, the
// operation goes on, later lines are tried again, and Close tells the first error.
//
// Nothing goes past the filter: there is no inline I/O, no file access, and
// queues go through it.
package log

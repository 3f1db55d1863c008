// Package fault makes operations fail on purpose.
//
//	--filter fault:KEY=VALUE,...
//
//	error=NAME         the error, an errno's name: EIO (the default), ENOSPC, EPERM, ...
//	error-rate=RATE    the share of operations that fail, 10% or 0.1; all by default
//	error-file=PATH    faults happen only while this file exists
//	op=OP+OP...        only these: read, write, zero, trim, flush, extents, cache
//	range=FROM-TO      only operations that touch these bytes (TO is not one of them)
//	after=N            the first N operations that would fail do not
//	count=N            at most N operations fail
//	seed=N             which operations a rate selects is the same for the same seed
//	error-OP=NAME, error-OP-rate=RATE, error-OP-file=PATH
//	                   the same for one kind of operation, which nbdkit calls pread,
//	                   pwrite, zero, trim, extents, cache; and flush. If a rate is
//	                   given in this way, other operations do not fail unless
//	                   error-rate says so.
//
// The names are those of nbdkit's error filter, and more. A disk that is full
// from 1 GiB on, and one whose first two flushes fail:
//
//	--filter fault:error=ENOSPC,op=write+zero,range=1G-1T
//	--filter fault:op=flush,count=2
//
// What fails has not touched the disk below. Programs compose [Rule] values
// instead and hand them to [New]; this is the place of fault predicates for all
// of the project's tests.
//
// Nothing goes past the filter: there is no inline I/O, no file access, and
// queues go through it.
package fault

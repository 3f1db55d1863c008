// Package nozero changes what a disk says of zeroing and how it zeroes, to
// compare clients and copy strategies on servers of each kind: one that zeroes
// in no time, one that turns a zero into a write, one that knows neither, and
// one that lies. Modes and their names are those of nbdkit's nozero filter.
//
//	--filter nozero[:zeromode=MODE][,fastzeromode=MODE]
//
// zeromode:
//
//	none     servers do not offer zeroing, clients write zeros (the default)
//	emulate  zeroes are turned into writes of up to 1 MiB
//	notrim   zeroes are passed on without leave to deallocate (MayTrim)
//	plugin   zeroes are passed on
//
// fastzeromode, which zeromode=none leaves no room for:
//
//	none     fast zeroing is not offered
//	slow     it is offered, and every request for it is refused at once
//	ignore   it is offered, and done by any means, fast or slow. This breaks the
//	         contract, on purpose: a client that trusts such a server suffers
//	default  like slow under zeromode=emulate, else what the disk below does
//
// Everything else, management included, passes through. The example of the
// fast-zero study, a server whose zero is a write and costs as much:
//
//	vmdisk serve mem:100M --nbd unix:/tmp/b --filter nozero:zeromode=emulate --filter delay:write=40ms,zero=5ms
package nozero

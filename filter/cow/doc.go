// Package cow lets a disk be written without changing it: what is written goes
// to an overlay, which is thrown away when the disk is closed.
//
//	--filter cow[:store=memory|file][,dir=DIR][,blocksize=SIZE]
//
//	store      where the overlay is: RAM (the default), or a sparse temporary file
//	dir        the folder of that file; $TMPDIR by default, else /var/tmp. The file
//	           has no name, so it is gone whenever the process is.
//	blocksize  the unit of copying, a power of two from 4K to 2M; 64K by default
//
// The name and the behaviour are those of nbdkit's cow filter. A throw-away
// guest from a golden image:
//
//	vmdisk serve golden.img --nbd unix:/run/g.sock --filter cow:store=file,dir=/scratch
//
// The first write to a part of a block copies the rest of it up; whole blocks
// are not read. Whole blocks that are zeroed or trimmed take no space. The disk
// below may be read-only, and must not change meanwhile. Extents are those of the
// disk below where nothing was written. A flush does nothing, since the overlay
// is not meant to last.
package cow

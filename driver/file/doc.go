// Package file is the driver for raw disks on the host: regular files and block
// devices, through the page cache or past it (O_DIRECT).
//
// Zeroing walks a ladder of system calls, fastest first, and remembers for the
// life of the open file which of them the storage refuses; see [File.Zero].
// Extents come from SEEK_DATA and SEEK_HOLE. Queues are io_uring rings, or a
// pool of threads where the kernel allows no rings.
//
// A disk that is open here conflicts with QEMU's tools as they conflict with
// each other: the driver takes the same OFD lock bytes as QEMU's
// block/file-posix.c, and opens writable block devices with O_EXCL.
package file

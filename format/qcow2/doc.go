// Package qcow2 is the format of QEMU's images, over any child disk: a file, a
// block device, an NBD export, RAM.
//
// It follows docs/interop/qcow2 of QEMU, section by section: "Header" and
// "Header extensions" are in header.go and extensions.go, "Cluster mapping" and
// "Extended L2 Entries" in mapping.go, compressed clusters in inflate.go.
//
// "Host cluster management" in refcounts.go and alloc.go, the order of writes in
// commit.go.
//
// Images of both versions, with clusters from 512 bytes to 2 MiB, extended L2
// entries, zlib and zstd compression, backing files and external data files are
// read, and written but for external data files and persistent bitmaps. Internal
// snapshots stay what they are. Encrypted images are refused, and so is writing to one
// that is marked dirty or corrupt.
//
// Written data are on stable storage after a flush, as are the tables that lead to
// them. At a crash an image is left that is sound but for clusters that are
// counted and not used; one with lazy refcounts is marked dirty then, and its refcounts have
// to be repaired before it is written to again.
//
// An image is not trusted. Every count and every offset in it is checked before
// anything is allocated or read by it, a feature that is not known is refused by its
// name, and nothing that the image names is opened unless the caller hands in an
// [Opener], which is the caller's policy: where such files may lie, of which
// formats, how deep a chain may be. An Opener is told the name and the format as the
// image has them. It opens read-only, and never guesses a format: a guest could
// have written the beginning of a raw file.
//
// What is kept in memory is bounded: the L1 table (32 MiB at the most), L2 tables
// ([Options].L2Cache) and some clusters that were inflated for a part of them alone.
package qcow2

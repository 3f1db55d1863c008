// Package pattern is the driver of `pattern:SIZE`: a disk whose every 8 bytes
// hold their own offset as a big-endian number, so that data which lands in a
// wrong place shows where it came from. The content is that of nbdkit's pattern
// plugin. It costs no memory, at any size.
//
// Like nbdkit's, the disk is read-only. [OpenVerify] makes one that takes
// writes and compares them: a write of anything but the pattern fails with EIO
// and names the first wrong offset. That is a target which checks a copy as it
// arrives.
package pattern

// Package interop holds the tests of vmdisk against the programs it has to get
// on with: qemu-img, qemu-io, qemu-nbd, nbdinfo, nbdcopy, nbdsh, nbdkit, fio and
// the Linux kernel's NBD client.
//
// The package itself is empty. Its subfolders are shared with versus: peer runs
// those programs, rawnbd is the least possible NBD client (written apart from
// package nbd, so that a misreading of the protocol is not made twice), guest
// boots a kernel in QEMU.
//
// A peer that is not installed fails the tests and names the Debian package;
// `make test` installs them. Three variables of the environment change what is
// tested: VMDISK_BIN is another vmdisk than that of the sources, and
// VMDISK_NEWER_PEERS=1 adds the QEMU and libnbd of a later Debian, which speak
// extended headers (scripts/mkpeers.sh downloads them once). VMDISK_HOSTILE=full has
// 1,000 hostile clients of each kind for half a minute, and more kinds of them, where the
// suite has a few hundred for a moment.
package interop

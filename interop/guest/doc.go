// Package guest boots a Linux guest in QEMU (emulated, no KVM) whose only
// process is a small agent of this repository, and drives it: the guest's own
// kernel attaches an NBD export of the host by nbd.ko, puts a file system on it,
// writes, syncs and verifies. A boot takes a few seconds.
//
// The kernel, its modules and the file system tools are those installed on the
// host; the initramfs is made from them at Boot.
package guest

// Package vm boots the virtual machines of an experiment in QEMU and ends them.
//
// Argv turns a Config into QEMU's command line and nothing else, so that what an
// axis does can be read and tested without a guest. Missing says in words why a
// set-up cannot run on this host; ProbeKVM whether KVM really boots a guest. A Kit
// is what guests boot: a kernel of the host and an initramfs whose /init is the
// vmdisk binary. Boot starts one guest and returns when something in it has opened
// the agent's port; what is said there is the agent's matter.
//
// Guests are x86-64 PCs. The package leaves nothing behind: QEMU dies with this
// process, sockets go with Close.
package vm

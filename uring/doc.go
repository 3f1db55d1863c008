// Package uring drives the kernel's io_uring rings in pure Go, with the few
// raw system calls beside it that golang.org/x/sys lacks (block device ioctls,
// allocation-free preadv2 and pwritev2). Only this package and vhost/ use
// unsafe; it knows nothing of disks.
//
// A [Ring] has one owner: all methods except [Ring.Wake] are called from one
// goroutine that stays on one thread (runtime.LockOSThread), because the ring
// is set up with IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN
// where the kernel has them (6.1). The owner is the thread of the first
// [Ring.Submit] or [Ring.Wait], not of [New].
//
// The kernel, not the garbage collector, holds the buffers of an operation in
// flight: the caller keeps them reachable until the completion. They must lie
// on the heap or in memory from [Alloc], never on a goroutine's stack.
//
// Source of the layouts and rules: io_uring_setup(2), io_uring_enter(2),
// io_uring_register(2) and include/uapi/linux/io_uring.h.
package uring

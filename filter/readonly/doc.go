// Package readonly refuses every change of a disk: writes, zeroes, trims and
// resizing fail with disk.ErrReadOnly (EPERM to an NBD client). Reading costs
// what it costs without the filter. It has no parameters.
//
//	--filter readonly
//
//	vmdisk serve base=/images/base.raw --nbd unix:/run/base.sock --filter readonly
//
// Unlike opening the disk read-only, which `vmdisk serve --read-only` does where
// the driver can, it works over any disk and at any place of a stack.
package readonly

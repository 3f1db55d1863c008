// Package limit shows a part of a disk as a disk of its own:
//
//	--filter limit:offset=SIZE[,size=SIZE]
//	--filter limit:partition=N[,sectorsize=512|4096]
//
//	offset      where the part begins (0)
//	size        how long it is; by default up to the end of the disk
//	partition   the part is this partition of an MBR or GPT: 1 to 4 are the
//	            primary ones of an MBR, 5 and up its logical ones
//	sectorsize  what the table counts in; by default it is found out for a GPT,
//	            and 512 for an MBR
//
// This is nbdkit's offset and partition filters in one; offset and size (nbdkit
// calls it range) count within the partition if both are given.
//
//	vmdisk copy --src-filter limit:partition=1 disk.img root.img
//
// The partition table is the guest's to write, so nothing in it is trusted: a
// partition that reaches past the disk, a table of absurd length and a chain of
// logical partitions that loops are errors. The part does not follow when the
// table is changed later. Nothing outside the part is ever read or written on
// behalf of its users, and management of the whole disk is out of their reach.
package limit

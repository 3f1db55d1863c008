// Package noextents hides what is known of a disk's content: its maps, so that
// block status reports all of it as data, and that it is new and therefore zero.
// It answers to the name of nbdkit's noextents filter and has no parameters.
//
//	--filter noextents
//
// It is for measuring what knowing extents is worth, and for targets whose block
// status costs more than it saves. Everything else passes through:
//
//	vmdisk copy --dst-filter noextents disk.img nbd://backup/disk
package noextents

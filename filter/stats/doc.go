// Package stats counts operations: how many, how many bytes, how many failed,
// how long they took, and how their sizes are spread.
//
//	--filter stats:statsfile=FILE[,statsappend=on]
//
//	statsfile    where the numbers are written when the disk is closed; text for
//	             people, or JSON if the name ends in .json. /dev/stderr works.
//	statsappend  add to the file instead of replacing it
//
// The names are those of nbdkit's stats filter. What is counted is what reaches
// this place of the stack: above nozero a zero is a zero, below it is the writes
// that it became. A program reads the numbers at any time:
//
//	if s, ok := disk.As[*stats.Filter](d); ok { fmt.Println(s.Snapshot().Write.Ops) }
//
// Cancelled and refused operations count as failed, with their time but without
// their bytes; inline operations that would have blocked do not count. File
// ranges are not handed out, since what happens to them could not be counted.
package stats

// Package rate limits bandwidth by token buckets, one for reads and one for
// writes:
//
//	--filter rate:rate=SIZE[,read-rate=SIZE][,write-rate=SIZE][,burst=SIZE]
//
//	rate        bytes per second of reads, and as many of writes; a size such as
//	            100M. (nbdkit's filter of this name counts bits.)
//	read-rate   the same for reads alone, in place of rate
//	write-rate  the same for writes alone
//	burst       bytes that may pass at once after idling; by default what the
//	            rate gives in a tenth of a second
//
// A direction without a rate is not limited. Zeroes, trims and flushes carry no
// data and pass freely; a zero that the disk below turns into writes does too.
// Requests wait before the disk below sees them, in order of arrival, and stop
// waiting when they are cancelled. One that is longer than the burst is let
// through when the bucket is full and leaves it in debt, so the rate holds for
// any size. Nothing goes past the filter.
package rate

// Package delay makes operations take longer, as on a slow or distant disk.
// Parameters are durations (40ms, 250us, 1.5s; a bare number is seconds), of
// 0 unless given:
//
//	read, rdelay, delay-read     each read
//	write, delay-write           each write
//	zero, delay-zero             each zero
//	trim, delay-trim             each trim
//	wdelay                       each write, zero and trim
//	flush, delay-flush           each flush
//	extents, delay-extents       each query of a map (block status)
//	cache, delay-cache           each prefetch
//	open, delay-open             no operation begins earlier than this after opening
//	close, delay-close           closing
//	delay-fast-zero=on|off       off: fast zeroes are refused at once, without a delay
//
// The names are those of nbdkit's delay filter, and short ones.
//
//	--filter delay:write=40ms,zero=5ms
//
// Delays run side by side: ten reads at once take as long as one. A zero that
// the disk below turns into writes is delayed once, as a zero; to delay the
// writes, put the filter that emulates above this one. FUA that the disk below
// emulates costs the delay of a write and of a flush. Waiting ends when the
// operation is cancelled, before the disk below has seen it. Nothing goes past
// the filter: there is no inline I/O, no file access, and queues go through it.
package delay

// Package mem is the driver of `mem:SIZE`: a sparse disk in RAM.
//
// Memory is taken in chunks of 64 KiB when they are written, for as many pages as the
// first write touches and for all of the chunk at the next that goes beyond these. It
// is given back when the chunk is zeroed or trimmed, so an empty disk of 8 TiB costs
// some hundred KiB. Extents are exact to pages of 4 KiB. Writes are atomic within a
// chunk. There is no lock that all I/O shares: each chunk has its own.
//
// Everything is native (zero, fast zero, trim, FUA), nothing ever blocks, and a
// flush has nothing to do: the content lives as long as the process. Zero gives
// memory back even without MayTrim, since RAM has no space to reserve.
package mem

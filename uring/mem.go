package uring

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alloc returns n bytes (> 0) of zeroed memory outside the Go heap, aligned to the
// page size: fit for O_DIRECT, for registration, and never scanned by the
// garbage collector. It is released by Free alone.
func Alloc(n int) ([]byte, error) {
	if n <= 0 {
		return nil, fmt.Errorf("allocate %d bytes: must be positive", n)
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes: %w", n, err)
	}
	return b, nil
}

// Free releases memory from Alloc, given exactly as Alloc returned it.
func Free(b []byte) { _ = unix.Munmap(b) } // it fails only for memory that is not Alloc's

// Carve cuts mem into len(mem)/size buffers of size bytes each.
func Carve(mem []byte, size int) [][]byte {
	bufs := make([][]byte, 0, len(mem)/size)
	for ; len(mem) >= size; mem = mem[size:] {
		bufs = append(bufs, mem[:size:size])
	}
	return bufs
}

// Aligned reports whether p begins at a multiple of align, a power of two, and
// its length is one too.
func Aligned(p []byte, align int) bool {
	return (uintptr(unsafe.Pointer(unsafe.SliceData(p)))|uintptr(len(p)))&uintptr(align-1) == 0
}

package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/driver/mem"
)

// TestIO: a disk behaves as package io says of readers and writers.
func TestIO(t *testing.T) {
	t.Parallel()
	const size = 10000
	d, err := mem.Open(size)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := d.IO(ctx)
	want := bytes.Repeat([]byte("0123456789"), size/10)
	if n, err := io.Copy(io.NewOffsetWriter(a, 0), bytes.NewReader(want)); n != size || err != nil {
		t.Fatal(n, err)
	}
	if err := iotest.TestReader(io.NewSectionReader(a, 0, a.Size()), want); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 100)
	if n, err := a.ReadAt(buf, size-10); n != 10 || !errors.Is(err, io.EOF) || !bytes.Equal(buf[:10], want[:10]) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if n, err := a.ReadAt(buf, 1<<62); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("far beyond: %d, %v", n, err)
	}
	if n, err := a.ReadAt(buf, -1); n != 0 || !errors.Is(err, disk.ErrRange) {
		t.Errorf("before the beginning: %d, %v", n, err)
	}
	if n, err := a.WriteAt(buf, size-10); n != 0 || !errors.Is(err, disk.ErrRange) {
		t.Errorf("a write beyond the end: %d, %v", n, err)
	}
}

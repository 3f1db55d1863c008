package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// content is the i-th file of a seed: random bytes that anybody can make again.
func content(seed uint64, i int, size int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(i))
	p := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(p)
	return p
}

func fileName(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("file%05d", i)) }

// writeFiles writes count files into dir, numbered from first, and syncs each
// file and the directory before it reports the next step.
func writeFiles(dir string, first, count int, size int64, seed uint64, step func(int)) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	for i := first; i < first+count; i++ {
		if err := writeSynced(fileName(dir, i), content(seed, i, size)); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
		step(i - first + 1)
	}
	return nil
}

func writeSynced(name string, p []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// verifyFiles names the files that are missing or differ; "" means none.
func verifyFiles(dir string, first, count int, size int64, seed uint64) (string, error) {
	var bad []string
	for i := first; i < first+count; i++ {
		name := fileName(dir, i)
		have, err := os.ReadFile(name)
		switch {
		case err != nil:
			bad = append(bad, err.Error())
		case !bytes.Equal(have, content(seed, i, size)):
			bad = append(bad, name+": content differs")
		}
	}
	return strings.Join(bad, "\n"), nil
}

// exercise does count random operations (write, read, truncate, sync, close and
// open again with the cache dropped) on one file of up to size bytes and checks
// each read against a copy in memory, as fsx does.
func exercise(name string, count int, size int64, seed uint64) (string, error) {
	rng := rand.New(rand.NewPCG(seed, 1))
	x := exerciser{name: name, rng: rng, size: size}
	if err := x.open(); err != nil {
		return "", err
	}
	defer func() { _ = x.f.Close() }()
	for i := range count {
		if err := x.step(); err != nil {
			return "", fmt.Errorf("operation %d of %s: %w", i, name, err)
		}
	}
	return "", x.check(0, int64(len(x.model)))
}

type exerciser struct {
	name  string
	f     *os.File
	rng   *rand.Rand
	size  int64
	model []byte
}

func (x *exerciser) open() error {
	f, err := os.OpenFile(x.name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	x.f = f
	return nil
}

func (x *exerciser) step() error {
	off := x.rng.Int64N(x.size)
	n := 1 + x.rng.Int64N(min(x.size-off, 64<<10))
	switch k := x.rng.IntN(20); {
	case k < 9:
		return x.write(off, n)
	case k < 16:
		return x.check(off, n)
	case k < 17:
		return x.truncate(off)
	case k < 19:
		return x.f.Sync()
	}
	return x.reopen()
}

func (x *exerciser) write(off, n int64) error {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(x.rng.Uint32())
	}
	if over := off + n - int64(len(x.model)); over > 0 {
		x.model = append(x.model, make([]byte, over)...)
	}
	copy(x.model[off:], p)
	_, err := x.f.WriteAt(p, off)
	return err
}

func (x *exerciser) truncate(n int64) error {
	if over := n - int64(len(x.model)); over > 0 {
		x.model = append(x.model, make([]byte, over)...)
	}
	clear(x.model[n:])
	x.model = x.model[:n]
	return x.f.Truncate(n)
}

func (x *exerciser) check(off, n int64) error {
	n = min(n, int64(len(x.model))-off)
	if n <= 0 {
		return nil
	}
	p := make([]byte, n)
	if _, err := x.f.ReadAt(p, off); err != nil {
		return err
	}
	if !bytes.Equal(p, x.model[off:off+n]) {
		return fmt.Errorf("%d bytes at %d differ from what was written", n, off)
	}
	return nil
}

func (x *exerciser) reopen() error {
	if err := x.f.Sync(); err != nil {
		return err
	}
	if err := x.f.Close(); err != nil {
		return err
	}
	if err := dropCaches(); err != nil {
		return err
	}
	return x.open()
}

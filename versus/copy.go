package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vmdisk/vmdisk/interop/peer"
)

// realImage puts the real image into the folder of the run, so that source and
// target are on one file system, and into the page cache.
func realImage(ctx context.Context, e *Env) (string, error) {
	image, err := e.Shared("image", func(path string) error {
		cached, err := peer.RealImage(ctx)
		if err == nil {
			_, err = peer.Run(ctx, "cp", "--sparse=always", cached, path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	settle()
	return image, warm(image)
}

// equal checks a copy with a program that is none of the contenders' own code.
func equal(ctx context.Context, a, b string) error {
	if _, err := peer.Run(ctx, "qemu-img", "compare", "-f", "raw", "-F", "raw", a, b); err != nil {
		return fmt.Errorf("the copy is wrong: %w", err)
	}
	return nil
}

// fileCopy copies image to a new file with the program; the time ends when the
// file is on stable storage.
func fileCopy(name string, e *Env, image, dst string, argv ...string) Contender {
	return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
		if err := os.Remove(dst); err != nil && !os.IsNotExist(err) {
			return Sample{}, err
		}
		settle()
		s, err := timed(ctx, nil, func() error { return durable(dst) }, argv...)
		if err == nil && round == 0 {
			err = equal(ctx, image, dst)
		}
		return s, err
	}}
}

func rawToRaw() Case {
	return Case{
		Name: "copy/raw-to-raw", Unit: Seconds, Short: true,
		Goals: []Goal{against("cp --sparse=always", 0.9)},
		What:  "the real image to a new file, until it is on stable storage",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			dst := e.Path("copy")
			return []Contender{
				fileCopy(oursName+" copy", e, image, dst, e.Bin, "copy", "--progress", "none", "raw:"+image, "raw:"+dst),
				fileCopy("cp --sparse=always", e, image, dst, "cp", "--sparse=always", image, dst),
				fileCopy("qemu-img convert -W", e, image, dst, "qemu-img", "convert", "-W", "-f", "raw", "-O", "raw", image, dst),
				fileCopy("nbdcopy", e, image, dst, "nbdcopy", image, dst),
			}, nil
		},
	}
}

// pair is a client and a server.
type pair struct {
	name   string
	server func(e *Env, image string) (*peer.Server, error)
	// argv of the client, with the local file and the server's URI.
	argv func(e *Env, file, uri string) []string
	info bool // no peer: shows what our server does for others
}

func serveOurs(e *Env, image string) (*peer.Server, error) {
	return peer.Vmdisk(e.Bin, e.Dir, "raw:"+image)
}
func serveNbdkit(e *Env, image string) (*peer.Server, error) {
	return peer.Nbdkit(e.Dir, "file", image)
}
func serveQemu(e *Env, image string) (*peer.Server, error) {
	return peer.QemuNBD(e.Dir, "-f", "raw", "--discard=unmap", image)
}

func ourCopy(e *Env, from, to string) []string {
	return []string{e.Bin, "copy", "--progress", "none", from, to}
}

// toServer are the pairs that copy a file to a server's new file; every client
// ends with a flush.
var toServer = []pair{
	{name: oursName + " copy, vmdisk serve", server: serveOurs, argv: func(e *Env, f, uri string) []string { return ourCopy(e, "raw:"+f, uri) }},
	{name: "nbdcopy, nbdkit file", server: serveNbdkit, argv: nbdcopyTo},
	{name: "nbdcopy, qemu-nbd", server: serveQemu, argv: nbdcopyTo},
	{name: "qemu-img, nbdkit file", server: serveNbdkit, argv: qemuImgTo},
	{name: "qemu-img, qemu-nbd", server: serveQemu, argv: qemuImgTo},
	{name: "nbdcopy, vmdisk serve", server: serveOurs, argv: nbdcopyTo, info: true},
	{name: "qemu-img, vmdisk serve", server: serveOurs, argv: qemuImgTo, info: true},
}

// fromServer are the pairs that copy a server's file to a new local one.
var fromServer = []pair{
	{name: oursName + " copy, vmdisk serve", server: serveOurs, argv: func(e *Env, f, uri string) []string { return ourCopy(e, uri, "raw:"+f) }},
	{name: "nbdcopy, nbdkit file", server: serveNbdkit, argv: nbdcopyFrom},
	{name: "nbdcopy, qemu-nbd", server: serveQemu, argv: nbdcopyFrom},
	{name: "qemu-img, nbdkit file", server: serveNbdkit, argv: qemuImgFrom},
	{name: "qemu-img, qemu-nbd", server: serveQemu, argv: qemuImgFrom},
}

func nbdcopyTo(_ *Env, f, uri string) []string   { return []string{"nbdcopy", "--flush", f, uri} }
func nbdcopyFrom(_ *Env, f, uri string) []string { return []string{"nbdcopy", uri, f} }

// qemuImgTo: without -t writeback qemu-img would not flush at the end.
func qemuImgTo(_ *Env, f, uri string) []string {
	return []string{"qemu-img", "convert", "-W", "-n", "-t", "writeback", "-f", "raw", "-O", "raw", f, uri}
}

func qemuImgFrom(_ *Env, f, uri string) []string {
	return []string{"qemu-img", "convert", "-W", "-f", "raw", "-O", "raw", uri, f}
}

// storageAlone writes as much as image has data to the same places of a new file, from
// one buffer, and syncs it: what a copy cannot be much faster than on this storage.
//
// dst is the other contenders' file: its pages, freed just before, take the new data.
// A guest whose host gives it memory at the first touch writes five times as slowly
// to pages that it has not had yet.
func storageAlone(image, dst string) Contender {
	return Contender{Name: "the writes alone", Info: true, Run: func(context.Context, int) (Sample, error) {
		st, err := os.Stat(image)
		if err != nil {
			return Sample{}, err
		}
		if err := sparse(dst, st.Size()); err != nil {
			return Sample{}, err
		}
		settle()
		start := time.Now()
		f, err := os.OpenFile(dst, os.O_RDWR, 0)
		if err != nil {
			return Sample{}, err
		}
		buf := bytes.Repeat([]byte{0x5a}, 1<<20)
		err = eachMiB(image, func(off, n int64) error {
			_, err := f.WriteAt(buf[:n], off)
			return err
		})
		err = errors.Join(err, f.Sync(), f.Close())
		return Sample{Value: time.Since(start).Seconds()}, err
	}}
}

func toOwnServer() Case {
	return Case{
		Name: "copy/to-nbd", Unit: Seconds, Short: true,
		Goals: []Goal{within(0.67)},
		What:  "the real image to a new file behind each one's NBD server, flushed",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			var list []Contender
			for _, p := range toServer {
				list = append(list, Contender{Name: p.name, Info: p.info, Run: func(ctx context.Context, round int) (Sample, error) {
					return p.upload(ctx, e, image, round == 0)
				}})
			}
			return append(list, storageAlone(image, e.Path("served"))), nil
		},
	}
}

// upload copies image to a new file behind the pair's server.
func (p pair) upload(ctx context.Context, e *Env, image string, check bool) (Sample, error) {
	st, err := os.Stat(image)
	if err != nil {
		return Sample{}, err
	}
	dst := e.Path("served")
	if err := sparse(dst, st.Size()); err != nil {
		return Sample{}, err
	}
	settle()
	s, err := p.server(e, dst)
	if err != nil {
		return Sample{}, err
	}
	defer s.Kill()
	sample, err := timed(ctx, []*peer.Server{s}, nil, p.argv(e, image, s.URI())...)
	if err == nil && check {
		s.Kill() // its lock goes, and what it had not written
		err = equal(ctx, image, dst)
	}
	return sample, err
}

func fromOwnServer() Case {
	return Case{
		Name: "copy/from-nbd", Unit: Seconds, Short: true,
		Goals: []Goal{within(0.67)},
		What:  "the real image from each one's NBD server to a new file, until it is on stable storage",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			var list []Contender
			for _, p := range fromServer {
				list = append(list, Contender{Name: p.name, Run: func(ctx context.Context, round int) (Sample, error) {
					return p.download(ctx, e, image, round == 0)
				}})
			}
			return append(list, storageAlone(image, e.Path("copy"))), nil
		},
	}
}

func (p pair) download(ctx context.Context, e *Env, image string, check bool) (Sample, error) {
	dst := e.Path("copy")
	if err := os.Remove(dst); err != nil && !os.IsNotExist(err) {
		return Sample{}, err
	}
	settle()
	s, err := p.server(e, image)
	if err != nil {
		return Sample{}, err
	}
	defer s.Kill()
	sample, err := timed(ctx, []*peer.Server{s}, func() error { return durable(dst) }, p.argv(e, dst, s.URI())...)
	if err == nil && check {
		s.Kill()
		err = equal(ctx, image, dst)
	}
	return sample, err
}

func toMemoryServer() Case {
	return Case{
		Name: "copy/to-nbdkit-memory", Unit: Seconds, Short: true,
		Goals: []Goal{within(1.0), cheaper(ClientCPU, 0.5)},
		What:  "the real image to nbdkit's memory plugin: the server is the limit",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			image, err := realImage(ctx, e)
			if err != nil {
				return nil, err
			}
			to := func(name string, argv func(e *Env, f, uri string) []string) Contender {
				return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
					s, err := peer.Nbdkit(e.Dir, "memory", "6G")
					if err != nil {
						return Sample{}, err
					}
					defer s.Kill()
					sample, err := timed(ctx, []*peer.Server{s}, nil, argv(e, image, s.URI())...)
					if err == nil && round == 0 {
						err = equal(ctx, image, s.URI())
					}
					return sample, err
				}}
			}
			return []Contender{
				to(oursName+" copy", toServer[0].argv),
				to("nbdcopy", toServer[1].argv),
				to("qemu-img convert -W", qemuImgTo),
			}, nil
		},
	}
}

// nullCopy measures the harness: a copy of nothing is what starting the
// programs costs.
func nullCopy() Case {
	return Case{
		Name: "harness/copy-null", Unit: Seconds, Short: true,
		What: "a copy of 4 KiB to nothing: what starting the programs costs",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			src, dst := e.Path("small"), e.Path("copy")
			if err := filled(src, 4096); err != nil {
				return nil, err
			}
			plain := func(name string, argv ...string) Contender {
				return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
					return timed(ctx, nil, nil, argv...)
				}}
			}
			return []Contender{
				plain(oursName+" copy", e.Bin, "copy", "--progress", "none", "raw:"+src, "null:4096"),
				plain("nbdcopy", "nbdcopy", src, "null:"),
				plain("qemu-img convert -W", "qemu-img", "convert", "-W", "-f", "raw", "-O", "raw", src, dst),
				plain("cp", "cp", src, dst),
			}, nil
		},
	}
}

// emptyCopy: nothing to copy must cost nothing, whatever the size.
func emptyCopy() Case {
	return Case{
		Name: "copy/empty-8T", Unit: Seconds, Short: true,
		Goals: []Goal{atMost(1)},
		What:  "an empty 8 TiB disk, NBD at both ends",
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			var mine, kit []*peer.Server
			for range 2 {
				s, err := e.Our("mem:8T")
				if err != nil {
					return nil, err
				}
				mine = append(mine, s)
				if s, err = e.Nbdkit("memory", "8T"); err != nil {
					return nil, err
				}
				kit = append(kit, s)
			}
			return []Contender{
				{Name: oursName + " copy", Run: func(ctx context.Context, round int) (Sample, error) {
					return timed(ctx, mine, nil, ourCopy(e, mine[0].URI(), mine[1].URI())...)
				}},
				{Name: oursName + " copy, nbdkit memory", Run: func(ctx context.Context, round int) (Sample, error) {
					return timed(ctx, kit, nil, ourCopy(e, kit[0].URI(), kit[1].URI())...)
				}},
				{Name: "nbdcopy, nbdkit memory", Rounds: 1, Run: func(ctx context.Context, round int) (Sample, error) {
					return timed(ctx, kit, nil, "nbdcopy", "--flush", kit[0].URI(), kit[1].URI())
				}},
			}, nil
		},
	}
}

// scattered makes a sparse file with count extents of size bytes, each followed
// by a hole of gap bytes; dense has the same data in one piece.
func scattered(path string, count int, size, gap int64) error {
	if err := sparse(path, int64(count)*(size+gap)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	block := make([]byte, size)
	for i := range block {
		block[i] = byte(1 + i%251)
	}
	for i := range int64(count) {
		if _, err = f.WriteAt(block, i*(size+gap)); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

const extents = 100_000

// scatteredToMemory: what an extent costs on the wire and in our servers.
func scatteredToMemory(name string, count, size, gap int64) Case {
	return Case{
		Name: "copy/scattered-" + name, Unit: Seconds, Short: true,
		Goals: []Goal{against(oursName+" dense", 1.2)},
		What: fmt.Sprintf("%d extents of %d KiB with holes of %d KiB, against the same data in one piece, our server to our server in memory",
			count, size>>10, gap>>10),
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			src, err := scatteredFiles(e, count, size, gap)
			if err != nil {
				return nil, err
			}
			return []Contender{
				memoryCopy(oursName+" scattered", e, src["scattered"], count*(size+gap)),
				memoryCopy(oursName+" dense", e, src["dense"], count*(size+gap)),
			}, nil
		},
	}
}

// scatteredToFile: a new file's own extents cost what its file system takes for
// them, whoever copies, so the goal is to be no slower than the best peer.
func scatteredToFile(size, gap int64) Case {
	return Case{
		Name: "copy/scattered-file", Unit: Seconds,
		Goals: []Goal{within(1.0)},
		What:  fmt.Sprintf("100,000 extents of %d KiB with holes of %d KiB, file to file", size>>10, gap>>10),
		Prepare: func(ctx context.Context, e *Env) ([]Contender, error) {
			src, err := scatteredFiles(e, extents, size, gap)
			if err != nil {
				return nil, err
			}
			dst := e.Path("copy")
			var list []Contender
			for _, kind := range []string{"scattered", "dense"} {
				image := src[kind]
				for _, c := range []Contender{
					fileCopy(oursName+" "+kind, e, image, dst, e.Bin, "copy", "--progress", "none", "raw:"+image, "raw:"+dst),
					fileCopy("cp "+kind, e, image, dst, "cp", "--sparse=always", image, dst),
					fileCopy("qemu-img "+kind, e, image, dst, "qemu-img", "convert", "-W", "-f", "raw", "-O", "raw", image, dst),
				} {
					c.Info = kind == "dense"
					list = append(list, c)
				}
			}
			return list, nil
		},
	}
}

// scatteredFiles makes the two sources.
func scatteredFiles(e *Env, count, size, gap int64) (map[string]string, error) {
	src := map[string]string{}
	for kind, create := range map[string]func(path string) error{
		"scattered": func(path string) error { return scattered(path, int(count), size, gap) },
		"dense":     func(path string) error { return scattered(path, 1, count*size, count*gap) },
	} {
		path, err := e.Shared(fmt.Sprintf("%s-%d-%d-%d", kind, count, size, gap), create)
		if err != nil {
			return nil, err
		}
		src[kind] = path
	}
	return src, nil
}

// memoryCopy copies a served file to a new disk in our server's memory.
func memoryCopy(name string, e *Env, image string, size int64) Contender {
	return Contender{Name: name, Run: func(ctx context.Context, round int) (Sample, error) {
		from, err := serveOurs(e, image)
		if err != nil {
			return Sample{}, err
		}
		defer from.Kill()
		to, err := peer.Vmdisk(e.Bin, e.Dir, fmt.Sprintf("mem:%d", size))
		if err != nil {
			return Sample{}, err
		}
		defer to.Kill()
		return timed(ctx, []*peer.Server{from, to}, nil, ourCopy(e, from.URI(), to.URI())...)
	}}
}

// cases are all cases in the order in which they run.
func cases() []Case {
	list := append(nullCases(), nullCopy())
	list = append(list, nbdCases()...)
	list = append(list, benchCases()...)
	list = append(list, imageioCases()...)
	list = append(list, agentOverhead())
	return append(list, idleCase(),
		rawToRaw(), toOwnServer(), fromOwnServer(), toMemoryServer(), toBlock(), emptyCopy(),
		scatteredToMemory("64k", extents/4, 64<<10, 64<<10), scatteredToMemory("16k", extents, 16<<10, 48<<10),
		scatteredToMemory("4k", extents, 4<<10, 4<<10), scatteredToFile(16<<10, 48<<10),
		reflinkCopy())
}

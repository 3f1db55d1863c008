package gen

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/bench/jobfile"
)

func job(t testing.TB, lines string) *jobfile.Job {
	t.Helper()
	p := jobfile.Parser{}
	if err := p.Bytes("job", []byte("[j]\n"+strings.ReplaceAll(lines, " ", "\n"))); err != nil {
		t.Fatal(err)
	}
	pl, err := p.Resolve(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return pl.Jobs[0]
}

func stream(j *jobfile.Job, start, size int64) *Stream {
	return NewStream(j, start, size, NewDraws(j, 42), "j.0.0")
}

// Random I/O without norandommap covers every byte exactly once, whatever the
// block sizes and the generator.
func TestCoverage(t *testing.T) {
	t.Parallel()
	for _, opts := range []string{
		"rw=randread bs=4k", "rw=randread bs=512", "rw=randread bs=4k random_generator=lfsr",
		"rw=randwrite bsrange=4k-64k", "rw=randwrite bssplit=4k/50:16k/30:64k/20", "rw=randread:8 bs=4k",
		"rw=randread bs=4k percentage_random=30", "rw=read bs=64k",
	} {
		t.Run(opts, func(t *testing.T) {
			t.Parallel()
			const start, size = 1 << 20, 3<<20 + 4096
			j := job(t, opts)
			s := stream(j, start, size)
			for pass := range 2 {
				seen := make([]bool, size/512)
				var total int64
				dir := s.draws.Dir()
				for off, n, ok := s.Next(dir); ok; off, n, ok = s.Next(dir) {
					if off < start || n < 1 || off+n > start+size {
						t.Fatalf("I/O %d+%d outside the region", off, n)
					}
					for b := (off - start) / 512; b < (off+n-start)/512; b++ {
						if seen[b] {
							t.Fatalf("pass %d: block at %d twice", pass, off)
						}
						seen[b] = true
					}
					total += n
				}
				if want := size / j.MinBS[dir] * j.MinBS[dir]; total != want {
					t.Errorf("pass %d covered %d of %d bytes", pass, total, want)
				}
				s.Restart()
			}
		})
	}
}

func TestLFSRIsAPermutation(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{1, 2, 3, 7, 8, 100, 255, 256, 4096, 65537} {
		l := NewLFSR(n, n*7)
		seen := make([]bool, n)
		count := uint64(0)
		for b, ok := l.Next(); ok; b, ok = l.Next() {
			if b >= n || seen[b] {
				t.Fatalf("n=%d: block %d out of range or twice", n, b)
			}
			seen[b] = true
			count++
		}
		if count != n {
			t.Errorf("n=%d: %d blocks visited", n, count)
		}
	}
}

// The map's search agrees with a plain scan.
func TestMapAgainstModel(t *testing.T) {
	t.Parallel()
	r := NewRandom(3)
	for _, n := range []uint64{1, 63, 64, 65, 4096, 4097, 300000} {
		m := NewMap(n)
		model := make([]bool, n)
		for range 3000 {
			b := r.Below(n)
			got, ok := m.Free(b)
			want, found := b, false
			for i := range n {
				if want = (b + i) % n; !model[want] {
					found = true
					break
				}
			}
			if ok != found || ok && got != want {
				t.Fatalf("n=%d: free after %d is %d, %v; want %d, %v", n, b, got, ok, want, found)
			}
			if !ok {
				break
			}
			k := m.Take(got, 1+r.Below(200))
			for i := range k {
				if model[got+i] {
					t.Fatalf("block %d taken twice", got+i)
				}
				model[got+i] = true
			}
		}
	}
}

func TestMix(t *testing.T) {
	t.Parallel()
	s := stream(job(t, "rw=randrw rwmixread=80"), 0, 1<<20)
	reads := 0
	for range 20000 {
		dir := s.draws.Dir()
		if dir == jobfile.Read {
			reads++
		}
		s.draws.Issued(dir)
	}
	if math.Abs(float64(reads)/20000-0.8) > 0.02 {
		t.Errorf("%d of 20000 are reads, want 80 %%", reads)
	}
}

func TestBlockSizeShares(t *testing.T) {
	t.Parallel()
	j := job(t, "rw=randread norandommap bssplit=512/10:1k/5:2k/5:4k/60:8k/2:16k/4:32k/4:64k/10")
	s := stream(j, 0, 1<<30)
	counts := map[int64]float64{}
	const n = 50000
	for range n {
		_, l, ok := s.Next(jobfile.Read)
		if !ok {
			t.Fatal("norandommap ended")
		}
		counts[l]++
	}
	for _, share := range j.Splits[jobfile.Read] {
		if got := counts[share.Size] * 100 / n; math.Abs(got-float64(share.Percent)) > 1 {
			t.Errorf("%d bytes: %.1f %%, want %d", share.Size, got, share.Percent)
		}
	}
}

func TestDistributions(t *testing.T) {
	t.Parallel()
	top := func(opts string, share float64) float64 {
		s := stream(job(t, "rw=randread size=256m "+opts), 0, 256<<20)
		counts := map[int64]int{}
		const n = 100000
		for range n {
			off, l, ok := s.Next(0)
			if !ok || off < 0 || off+l > 256<<20 {
				t.Fatalf("%s: %d+%d %v", opts, off, l, ok)
			}
			counts[off/(4096)]++
		}
		in := 0
		for b, c := range counts {
			if float64(b) < share*65536 {
				in += c
			}
		}
		return float64(in) / n
	}
	if got := top("random_distribution=zoned:50/5:30/15:20/", 0.05); math.Abs(got-0.5) > 0.01 {
		t.Errorf("zoned: first 5 %% take %.3f, want 0.5", got)
	}
	if got := top("random_distribution=zipf:1.2:0", 0.01); got < 0.75 || got > 0.99 {
		t.Errorf("zipf 1.2: first 1 %% take %.3f", got)
	}
	if got := top("random_distribution=pareto:0.2:0", 0.2); math.Abs(got-0.8) > 0.02 {
		t.Errorf("pareto 0.2: first 20 %% take %.3f, want 0.8", got)
	}
	if got := top("random_distribution=normal:10", 0.5); math.Abs(got-0.5) > 0.02 {
		t.Errorf("normal: the lower half takes %.3f", got)
	}
	if got := top("random_distribution=zipf:1.2", 0.01); got > 0.3 {
		t.Errorf("scattered zipf: first 1 %% take %.3f", got)
	}
}

func TestSequentialForms(t *testing.T) {
	t.Parallel()
	s := stream(job(t, "rw=read:-8k bs=4k"), 0, 16384)
	var got []int64
	for range 5 {
		off, _, _ := s.Next(0)
		got = append(got, off)
	}
	if fmt.Sprint(got) != "[12288 8192 4096 0 12288]" {
		t.Errorf("backwards: %v", got)
	}
	s = stream(job(t, "rw=randread bs=4k random_distribution=sequence:2,0,1 random_sequence_stride=1"), 0, 48<<10)
	got = nil
	for range 6 {
		off, _, _ := s.Next(0)
		got = append(got, off/4096)
	}
	if fmt.Sprint(got) != "[2 0 1 5 3 4]" {
		t.Errorf("sequence: %v", got)
	}
}

func TestFill(t *testing.T) {
	t.Parallel()
	f := NewFiller(job(t, "rw=write buffer_compress_percentage=75 buffer_compress_chunk=4k"), 1)
	buf := make([]byte, 64<<10)
	f.Next(buf, 0, 1)
	zeros := 0
	for _, b := range buf {
		if b == 0 {
			zeros++
		}
	}
	if share := float64(zeros) / float64(len(buf)); math.Abs(share-0.75) > 0.01 {
		t.Errorf("%.3f of the block is zero, want 0.75", share)
	}
	f = NewFiller(job(t, "rw=write dedupe_percentage=50"), 1)
	seen := map[string]bool{}
	dups := 0
	for i := range 4000 {
		f.Next(buf[:512], int64(i)*512, int64(i))
		if seen[string(buf[:512])] {
			dups++
		}
		seen[string(buf[:512])] = true
	}
	if share := float64(dups) / 4000; math.Abs(share-0.5) > 0.04 {
		t.Errorf("%.3f duplicates, want 0.5", share)
	}
	f = NewFiller(job(t, "rw=write"), 1)
	f.Init(buf[:512])
	a := string(buf[:512])
	f.Next(buf[:512], 512, 7)
	if a == string(buf[:512]) {
		t.Error("scrambling changed nothing")
	}
	f = NewFiller(job(t, "rw=write buffer_pattern=0x0102"), 1)
	f.Init(buf[:5])
	if string(buf[:5]) != "\x01\x02\x01\x02\x01" {
		t.Errorf("pattern: %x", buf[:5])
	}
}

var verifyKinds = []string{"crc32c", "crc32", "crc64", "crc16", "crc7", "md5", "sha1", "sha256", "sha512", "sha3-224", "sha3-256", "sha3-384", "sha3-512", "xxhash", "meta", "pattern_hdr", "pattern"}

func TestVerifyRoundTripAndDamage(t *testing.T) {
	t.Parallel()
	for _, kind := range verifyKinds {
		for _, opts := range []string{"", " verify_interval=512", " verify_offset=1k"} {
			if kind == "pattern" && opts != "" {
				continue
			}
			j := job(t, "rw=randwrite bs=4k verify_pattern=0xaa55 verify="+kind+opts)
			v := NewVerifier(j)
			buf := make([]byte, 4096)
			NewFiller(j, 1).Next(buf, 8192, 1)
			v.Write(buf, 8192, Stamp{Seed: 5, Number: 7, Thread: 1})
			clean := string(buf)
			if err := v.Check(buf, 8192, 7); err != nil {
				t.Errorf("%s%s: %v", kind, opts, err)
			}
			if kind == "pattern" {
				continue
			}
			copy(buf, clean)
			var ve *VerifyError
			if err := v.Check(buf, 12288, 7); !errors.As(err, &ve) || ve.What != "header of another offset" {
				t.Errorf("%s%s: a block from elsewhere gives %v", kind, opts, err)
			}
			copy(buf, clean)
			if err := v.Check(buf, 8192, 8); !errors.As(err, &ve) || !strings.Contains(ve.What, "stale") {
				t.Errorf("%s%s: an older write gives %v", kind, opts, err)
			}
			copy(buf, clean)
			buf[300] ^= 1
			if err := v.Check(buf, 8192, 7); kind != "meta" && kind != "pattern_hdr" && err == nil {
				t.Errorf("%s%s: a flipped bit was not seen", kind, opts)
			}
		}
	}
}

// Blocks that fio wrote verify here, and blocks written here verify in fio.
func TestVerifyWithFio(t *testing.T) {
	t.Parallel()
	fio, err := exec.LookPath("fio")
	if err != nil {
		t.Fatal("fio is not installed (apt install fio)")
	}
	for _, kind := range verifyKinds {
		if kind == "pattern_hdr" {
			continue // fio 3.33 has no such kind
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "f")
			args := []string{"--name=v", "--filename=" + name, "--size=64k", "--bs=4k", "--ioengine=psync", "--verify=" + kind, "--verify_pattern=0xaa55", "--output=/dev/null", "--verify_state_save=0"}
			out, err := exec.Command(fio, append(args, "--rw=write", "--do_verify=0")...).CombinedOutput()
			if err != nil {
				t.Fatalf("fio: %v\n%s", err, out)
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			j := job(t, "rw=write bs=4k verify_pattern=0xaa55 verify="+kind)
			v := NewVerifier(j)
			for off := 0; off < len(data); off += 4096 {
				if err := v.Check(data[off:off+4096], int64(off), -1); err != nil {
					t.Fatalf("fio's block: %v", err)
				}
			}
			if kind == "pattern" {
				return // the block is the pattern alone
			}
			if kind == "sha512" {
				return // the digest is stored here, which fio does not do; see fioSHA512
			}
			f := NewFiller(j, 3)
			for off := 0; off < len(data); off += 4096 {
				f.Next(data[off:off+4096], int64(off), 0)
				v.Write(data[off:off+4096], int64(off), Stamp{Seed: 1, Number: uint64(off / 4096), Thread: 1})
			}
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			// verify_only re-reads the blocks of the write job; the seed in the header is fio's own.
			out, err = exec.Command(fio, append(args, "--rw=read", "--verify_fatal=1")...).CombinedOutput()
			if err != nil && !strings.Contains(string(out), "rand_seed") {
				t.Errorf("fio does not accept our block: %v\n%s", err, out)
			}
		})
	}
}

func TestNoAllocations(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	s := stream(job(t, "rw=randrw bs=4k"), 0, 1<<30)
	f := NewFiller(job(t, "rw=randrw bs=4k"), 1)
	j := job(t, "rw=randwrite bs=4k verify=sha256")
	v := NewVerifier(j)
	buf := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		dir := s.draws.Dir()
		off, _, _ := s.Next(dir)
		s.draws.Issued(dir)
		f.Next(buf, off, 1)
		v.Write(buf, off, Stamp{})
		_ = v.Check(buf, off, 0)
	}); n > 0 {
		t.Errorf("%v allocations per I/O", n)
	}
}

func BenchmarkNext(b *testing.B) {
	s := stream(job(b, "rw=randread bs=4k norandommap"), 0, 1<<34)
	for range b.N {
		s.Next(s.draws.Dir())
	}
}

func BenchmarkNextMap(b *testing.B) {
	s := stream(job(b, "rw=randread bs=4k"), 0, 1<<34)
	for range b.N {
		if _, _, ok := s.Next(s.draws.Dir()); !ok {
			s.Restart()
		}
	}
}

func BenchmarkZipf(b *testing.B) {
	s := stream(job(b, "rw=randread bs=4k random_distribution=zipf:1.2"), 0, 1<<32)
	b.ResetTimer()
	for range b.N {
		s.Next(0)
	}
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// qemuLines are commands as qemu-img's users write them. After each, both programs have
// the same outcome and the same files. "exact" compares the exit status itself, not
// only whether it is 0; "blocks" the space that is taken; "out" what is printed.
var qemuLines = []struct{ line, compare string }{
	{"create -f raw new 10M", ""},
	{"create new 1.5G", ""},
	{"create -q -f raw new 1000", ""},
	{"create -f raw -o preallocation=falloc new 4M", "blocks"},
	{"create -f raw -o preallocation=full new 4M", "blocks"},
	{"create -f raw -o preallocation=off,size=3M new", ""},
	{"create -f raw -o preallocation=metadata new 4M", ""},
	{"create -f raw -o nosuch=1 new 4M", ""},
	{"create -f raw new", ""},
	{"create -f raw new 1Z", ""},
	{"create -f raw nodir/new 1M", ""},
	{"convert -f raw -O raw a new", "blocks"},
	{"convert -p -W -f raw -O raw a new", ""},
	{"convert -q a new", ""},
	{"convert -t none -T none -f raw -O raw a new", ""},
	{"convert -m 4 -W -S 64k -f raw -O raw a new", ""},
	{"convert -S 0 -f raw -O raw a new", "blocks"},
	{"convert -S 3000 a new", ""},
	{"convert -m 17 a new", ""},
	{"convert -c -O raw a new", ""},
	{"convert -O raw -o preallocation=falloc a new", "blocks"},
	{"convert -f raw -O raw a old", ""},
	{"convert -f raw -O raw small old", ""},
	{"convert -n -f raw -O raw a old", ""},
	{"convert -n -f raw -O raw old small", ""},
	{"convert -n -f raw -O raw a nosuch", ""},
	{"convert -f raw -O raw a small new", ""},
	{"convert -f raw -O raw small a old old2", ""},
	{"convert -f raw -O raw nosuch old", ""},
	{"convert -O raw a", ""},
	{"convert -f qcow2 -O raw q new", ""},
	{"convert -r 100M -f raw -O raw small new", ""},
	{"resize -f raw a 20M", ""},
	{"resize -f raw a +512K", ""},
	{"resize -q -f raw --shrink a -1M", ""},
	{"resize -f raw a 1M", ""},
	{"resize -f raw --preallocation=falloc a +4M", "blocks"},
	{"resize -f raw --preallocation=full a +4M", "blocks"},
	{"resize -f raw nosuch 1M", ""},
	{"info -f raw --output=json a", "json"},
	{"info -f raw --output=human a", "out"},
	{"info -U -f raw --output=json small", "json"},
	{"info --output=xml a", ""},
	{"info nosuch", ""},
	{"map -f raw --output=json a", "json"},
	{"map -f raw --output=json --start-offset=1M --max-length=2M a", "json"},
	{"map -f raw --output=human a", "out"},
	{"map nosuch", ""},
	{"measure -f raw -O raw a", "out"},
	{"measure -O raw --size 1000", "out"},
	{"measure --output=json -O raw --size 1G", "json"},
	{"measure -O raw nosuch", ""},
	{"dd -f raw -O raw if=a of=new bs=1M count=3", ""},
	{"dd if=a of=new bs=1M count=3 skip=2", ""},
	{"dd if=a of=new bs=1000 count=3", ""},
	{"dd if=a of=old bs=64k skip=32", ""},
	{"dd if=nosuch of=new", ""},
	{"dd if=a of=new bs=0", ""},
	{"compare -f raw -F raw a copy", "exact"},
	{"compare -q a copy", "exact"},
	{"compare -p a old", "exact"},
	{"compare -s a longer", "exact"},
	{"compare a longer", "exact"},
	{"compare a nosuch", "exact"},
	{"compare -T none -U a copy", "exact"},
	{"check -f raw a", "exact"},
	{"check nosuch", "exact"},
	{"--version", ""},
	{"nosuch a", ""},
}

// makeQEMUFiles are what the commands find.
func makeQEMUFiles(t *testing.T, dir string) {
	t.Helper()
	write := func(name string, size int64, at int64, data string) {
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			_, err = f.WriteAt([]byte(data), at)
		}
		if err = errors.Join(err, f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	data := strings.Repeat("vmdisk!\n", 1<<17)
	write("a", 10<<20, 2<<20, data)
	write("copy", 10<<20, 2<<20, data)
	write("longer", 12<<20, 2<<20, data)
	write("small", 1<<20, 0, data)
	write("old", 20<<20, 15<<20, data)
	if out, err := exec.Command("qemu-img", "convert", "-O", "qcow2", filepath.Join(dir, "a"), filepath.Join(dir, "q")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

type fileState struct {
	size, blocks int64
	sum          [sha256.Size]byte
}

func statesOf(t *testing.T, dir string) map[string]fileState {
	t.Helper()
	out := map[string]fileState{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		s := fileState{size: st.Size, blocks: st.Blocks}
		if st.Size < 1<<30 {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s.sum = sha256.Sum256(text)
		}
		out[e.Name()] = s
	}
	return out
}

// TestQEMUImgHabits: a script of qemu-img's works on raw images with vmdisk in its place.
func TestQEMUImgHabits(t *testing.T) {
	t.Parallel()
	for _, c := range qemuLines {
		t.Run(c.line, func(t *testing.T) {
			var outputs [2][]byte
			var status [2]int
			var files [2]map[string]fileState
			for i, program := range []string{"qemu-img", "vmdisk"} {
				dir := t.TempDir()
				makeQEMUFiles(t, dir)
				cmd := exec.Command(program, strings.Fields(c.line)...)
				var stderr bytes.Buffer
				cmd.Dir, cmd.Stderr = dir, &stderr
				outputs[i], _ = cmd.Output()
				status[i] = cmd.ProcessState.ExitCode()
				files[i] = statesOf(t, dir)
				if i == 1 && status[1] != 0 && strings.Count(stderr.String(), "\n") > 1 {
					t.Errorf("more than a line: %s", &stderr)
				}
				if i == 1 && status[1] != 0 && status[0] == 0 {
					t.Logf("%s", &stderr)
				}
			}
			compareHabit(t, c.compare, status, outputs)
			if status[0] == 0 || c.compare == "exact" {
				compareFiles(t, c.compare == "blocks", files)
			}
		})
	}
}

func compareHabit(t *testing.T, how string, status [2]int, out [2][]byte) {
	t.Helper()
	if (status[0] == 0) != (status[1] == 0) || how == "exact" && status[0] != status[1] {
		t.Errorf("qemu-img exits %d, vmdisk %d", status[0], status[1])
	}
	switch how {
	case "out":
		if !bytes.Equal(out[0], out[1]) {
			t.Errorf("qemu-img prints\n%s\nvmdisk\n%s", out[0], out[1])
		}
	case "json":
		var a, b any
		if err := errors.Join(json.Unmarshal(out[0], &a), json.Unmarshal(out[1], &b)); err != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("qemu-img prints\n%s\nvmdisk\n%s\n%v", out[0], out[1], err)
		}
	}
}

// compareFiles compares what is there in the end. qemu-img writes the first 4 KiB of an
// image that it makes, to learn the alignment, so a little space is no difference.
func compareFiles(t *testing.T, blocks bool, files [2]map[string]fileState) {
	t.Helper()
	const little = 64
	for name, want := range files[0] {
		got, ok := files[1][name]
		switch near := got.blocks - want.blocks; {
		case !ok:
			t.Errorf("there is no %s", name)
		case got.size != want.size || got.sum != want.sum:
			t.Errorf("%s has %d bytes, from qemu-img %d; or another content", name, got.size, want.size)
		case blocks && (near > little || near < -little):
			t.Errorf("%s takes %d sectors, from qemu-img %d", name, got.blocks, want.blocks)
		}
	}
	if len(files[0]) != len(files[1]) {
		t.Error(fmt.Sprint("other files: ", len(files[1])))
	}
}

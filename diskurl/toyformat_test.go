package diskurl

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/filter/limit"
)

const toyHeader = 4096

// A format that is added by this file alone: a header, which says the size and may name
// a backing file, and the bytes after it.
var _ = addFormat(&format{
	name: "toyfmt",
	open: func(ctx context.Context, child *disk.Disk, o FormatOptions) (*disk.Disk, error) {
		head := make([]byte, 16)
		if err := child.ReadAt(ctx, head, 0); err != nil || string(head[:4]) != "TOY!" {
			return nil, errors.Join(errors.New("it has no header of toyfmt"), err)
		}
		if name := string(head[12:16]); name != "\x00\x00\x00\x00" {
			if o.References == nil {
				return nil, errors.New("what it names is not allowed")
			}
			d, err := o.References(ctx, Reference{Kind: "backing file", Name: name, Format: "raw"})
			if err != nil {
				return nil, err
			}
			d.Close()
		}
		return limit.New(ctx, child, limit.Config{Offset: toyHeader, Size: int64(binary.BigEndian.Uint64(head[4:]))})
	},
	create: func(ctx context.Context, child *disk.Disk, o CreateOptions) error {
		if o.Size == 13 {
			return errors.New("13 brings bad luck")
		}
		if err := child.Grow(ctx, toyHeader+o.Size); err != nil {
			return err
		}
		return child.WriteAt(ctx, binary.BigEndian.AppendUint32([]byte("TOY!\x00\x00\x00\x00"), uint32(o.Size)), 0, 0)
	},
})

func TestToyFormat(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	if err := Create(t.Context(), "toyfmt:"+path, CreateOptions{Size: 13}); err == nil || !strings.Contains(err.Error(), "bad luck") {
		t.Errorf("a layout that fails: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a layout that fails leaves a file")
	}
	if err := Create(t.Context(), path, CreateOptions{Size: 8192, Format: "toyfmt"}); err != nil {
		t.Fatal(err)
	}
	if err := Create(t.Context(), "toyfmt:"+path, CreateOptions{Size: 13, Replace: true}); err == nil {
		t.Error("a layout that fails replaced a file")
	}
	for _, c := range []struct{ url, format string }{{"toyfmt:" + path, ""}, {path, "toyfmt"}, {"toyfmt:raw:" + path, ""}, {"toyfmt:file:" + path, "toyfmt"}} {
		d, err := Open(t.Context(), c.url, Options{Format: c.format})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteAt(t.Context(), []byte("hello"), 0, 0); err != nil || d.Size() != 8192 {
			t.Errorf("%s: size %d, %v", c.url, d.Size(), err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got[toyHeader:toyHeader+5]) != "hello" || len(got) != toyHeader+8192 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Over what is no file, and over an image that names another disk.
func TestToyFormatOver(t *testing.T) {
	t.Parallel()
	if _, err := Open(t.Context(), "toyfmt:mem:1M", Options{}); err == nil || !strings.Contains(err.Error(), "as toyfmt: it has no header") {
		t.Errorf("over RAM: %v", err)
	}
	dir := t.TempDir()
	image, backing := filepath.Join(dir, "image"), filepath.Join(dir, "base")
	for path, text := range map[string]string{image: "TOY!\x00\x00\x00\x00\x00\x00\x02\x00base", backing: ""} {
		if err := os.WriteFile(path, append([]byte(text), make([]byte, toyHeader+512-len(text))...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Format: "toyfmt", ReadOnly: true}
	if _, err := Open(t.Context(), image, o); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("without a policy: %v", err)
	}
	if err := o.References.Allow(dir); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), image, o)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if err := os.Remove(backing); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), image, o); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without its backing file: %v", err)
	}
	// What failed above is closed: the image can be had alone.
	if d, err = Open(t.Context(), image, Options{Format: "raw"}); err != nil {
		t.Fatal(err)
	}
	d.Close()
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/diskcopy"
	"github.com/vmdisk/vmdisk/diskurl"
)

// The values of --resume.
const (
	resumeOff   = "off"
	resumeCheck = "check"
	resumeTrust = "trust"
)

// openExisting opens a file that has its name already. --resume writes to it only if a
// journal says that a copy into this very file was stopped: anything else may be complete.
func (f *copyFlags) openExisting(c *cobra.Command, t *target, u diskurl.URL) (*target, error) {
	t.journal = f.options.Journal
	left, err := f.readJournal()
	if err != nil {
		return nil, err
	}
	id, err := diskurl.Identity(u.Path())
	if err != nil {
		return nil, err
	}
	o, mine := f.dst, left != nil && left.Target == id
	switch {
	case f.options.Resume && (!mine || left.Unnamed):
		t.present, o.ReadOnly = true, true
		if !mine {
			t.journal = "" // not of this file
		}
	case !f.options.Resume && mine && left.Done > 0:
		c.PrintErrf("vmdisk: copy: starting anew, though %d of %d bytes of a stopped copy are in %s; --resume goes on with them\n", left.Done, left.Size, u.Path())
	}
	t.disk, err = diskurl.Open(c.Context(), u.String(), o)
	return t, err
}

// verifyPresent compares a file that has its name with the source, and writes nothing to it.
func (f *copyFlags) verifyPresent(ctx context.Context, t *target, src *disk.Disk) (string, diskcopy.Stats, error) {
	start, size := time.Now(), src.Size()
	r := diskcopy.Comparison{Equal: t.disk.Size() >= size, Offset: t.disk.Size()}
	var err error
	if r.Equal && size > 0 {
		r, err = diskcopy.Compare(ctx, src, t.disk, diskcopy.CompareOptions{Length: size, QueueDepth: f.options.QueueDepth, Progress: f.options.Progress})
	}
	took := time.Since(start).Seconds()
	stats := diskcopy.Stats{Size: size, Strategy: f.options.Strategy, ZeroBy: "none needed", Verified: r.Equal, CheckedBytes: size,
		Phases: []diskcopy.Phase{{Name: "compare", Seconds: took}}, WallSeconds: took}
	switch {
	case err != nil:
		return "", stats, err
	case !r.Equal:
		return "", stats, fmt.Errorf("target: %s differs from the source at offset %d, and no journal says that a copy into it was stopped: nothing was written; copy without --resume to replace its content", t.disk, r.Offset)
	}
	if t.journal != "" {
		if err := os.Remove(t.journal); err != nil { // its copy was killed between its last two steps
			return "", stats, err
		}
	}
	return fmt.Sprintf("%s is complete: all %s were compared with the source and are equal, nothing was written\n", t.disk, sizeText(size)), stats, nil
}

// sayWhereFrom tells when there is nothing to resume on a server or a device, whose
// content cannot say whether a copy was ever begun.
func (f *copyFlags) sayWhereFrom(c *cobra.Command) error {
	left, err := f.readJournal()
	if err != nil || f.options.Journal == "" {
		return err
	}
	switch {
	case f.options.Resume && (left == nil || left.Target == ""):
		c.PrintErrf("vmdisk: copy: no journal %s of a stopped copy: starting at the beginning\n", f.options.Journal)
	case !f.options.Resume && left != nil && left.Done > 0:
		c.PrintErrf("vmdisk: copy: starting anew, though %d of %d bytes of a stopped copy are safe by %s; --resume goes on with them\n", left.Done, left.Size, f.options.Journal)
	}
	return nil
}

// maxJournalName leaves room in the 255 bytes of a file name.
const maxJournalName = 120

// defaultJournal is where a copy to a server or a device keeps its journal: beside a local source, else in
// the current folder. Its name tells the target without a ticket, which is a secret, and
// changes when a transfer goes on with a new one.
func defaultJournal(src, dst diskurl.URL) string {
	dir, prefix := "", "to"
	if src.Local() && isRegular(src.Path()) {
		dir, prefix = filepath.Dir(src.Path()), filepath.Base(src.Path())+".to"
	}
	id := dst.String()
	if a, ok := dst.Addr.(diskurl.HTTPAddr); ok {
		id = a.Scheme() + "://" + a.Host()
	}
	name := strings.Join(strings.FieldsFunc(id, notPlain), "-")
	name = name[:min(len(name), maxJournalName)]
	sum := sha256.Sum256([]byte(id))
	prefix = prefix[max(0, len(prefix)-maxJournalName):]
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%s.journal", prefix, name, hex.EncodeToString(sum[:4])))
}

// notPlain is what is not at home in file names.
func notPlain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_'
}

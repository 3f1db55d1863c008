package diskcopy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The journal is a text file of five blocks of 4 KiB, each a line of JSON, its CRC-32C and
// blanks. The first identifies the copy. Two hold in turn how far it is "done": all
// below is on the target's stable storage; written after a flush of the target, then synced. Two
// hold in turn what was "issued": nothing above was sent yet; written before the
// first request above the last such mark. A block that was torn by a crash does not
// match its checksum, and the other one of its pair counts: so the file does not grow, and is
// always as old as one checkpoint at most.
const (
	journalVersion = 2
	journalBlock   = 4096
	journalSize    = 5 * journalBlock
	journalMagic   = `{"vmdisk_journal":`

	doneBlocks   = 1
	issuedBlocks = 3

	issuedStep = 64 << 20
	// maxID bounds what the head keeps of a disk's ID.
	maxID = 1024
)

type journalHead struct {
	Version int      `json:"vmdisk_journal"`
	Source  identity `json:"source"`
	Target  identity `json:"target"`
	// Unnamed: the target gets its name once it is complete.
	Unnamed bool `json:"unnamed,omitempty"`
}

// journalMark is a block of either pair.
type journalMark struct {
	Seq  int64 `json:"seq"`
	Upto int64 `json:"upto"`
}

// journalState is what the blocks say together.
type journalState struct {
	head   journalHead
	valid  bool // there is a head
	done   journalMark
	issued journalMark
}

// journal records the progress of one copy. All methods work on nil: no journal.
type journal struct {
	f    *os.File
	path string
	// resumed is where the copy went on and sentTo what an earlier run may have sent.
	resumed, sentTo int64
	resent          atomic.Int64
	// syncIssued makes sure that what may have been sent is known even after a crash of the host.
	syncIssued bool

	mu     sync.Mutex
	done   journalMark
	issued journalMark
	err    error // of an unsynced write
}

// JournalInfo is what a journal tells of its copy.
type JournalInfo struct {
	Done, Size int64
	// Target is the ID of the target's storage.
	Target string
	// Unnamed: the target was to get its name once complete (see Options.Publish).
	Unnamed bool
}

// ReadJournal looks at the journal of a copy that may still be running: nil if there is no such
// file, or nothing in it yet. A file that is no journal is an error.
func ReadJournal(path string) (*JournalInfo, error) {
	f, err := openJournalFile(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // as documented
	}
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	defer f.Close()
	s, err := readJournal(f)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	if !s.valid {
		return &JournalInfo{}, nil
	}
	return &JournalInfo{Done: s.done.Upto, Size: s.head.Source.Size, Target: s.head.Target.ID, Unnamed: s.head.Unnamed}, nil
}

// openJournalFile opens a regular file; others might block, or act.
func openJournalFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0o600) // it describes a disk that others may not read
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errNoJournal, err, f.Close())
	}
	return f, nil
}

var errNoJournal = errors.New("exists and is not a vmdisk journal: name another file or remove it")

func readJournal(f *os.File) (journalState, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, journalSize))
	if err != nil {
		return journalState{}, err
	}
	return parseJournal(text)
}

// parseJournal reads what is whole. A file that is no journal is an error, so that no
// other file is ever overwritten; one that was torn at its very beginning has no head.
func parseJournal(text []byte) (s journalState, err error) {
	if n := min(len(text), len(journalMagic)); string(text[:n]) != journalMagic[:n] {
		return s, errNoJournal
	}
	var version struct {
		N int `json:"vmdisk_journal"`
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if json.NewDecoder(bytes.NewReader(line)).Decode(&version) == nil && version.N != journalVersion {
		return s, &versionError{version.N}
	}
	s.valid = decodeBlock(text, 0, &s.head) && s.head.Source.Size >= 0
	if !s.valid {
		return journalState{}, nil
	}
	size := s.head.Source.Size
	s.done, s.issued = newest(text, doneBlocks, size), newest(text, issuedBlocks, size)
	s.issued.Upto = max(s.issued.Upto, s.done.Upto)
	return s, nil
}

type versionError struct{ version int }

func (e *versionError) Error() string {
	return fmt.Sprintf("has version %d, this program writes %d: copy without --resume", e.version, journalVersion)
}

// IsOldJournal reports whether err says that a journal is of another version of this program.
func IsOldJournal(err error) bool {
	var old *versionError
	return errors.As(err, &old)
}

// newest is the later whole mark of a pair of blocks.
func newest(text []byte, first int, size int64) (best journalMark) {
	for i := first; i < first+2; i++ {
		var m journalMark
		if decodeBlock(text, i, &m) && m.Seq > best.Seq && m.Upto >= 0 {
			best = journalMark{m.Seq, min(m.Upto, size)}
		}
	}
	return best
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func decodeBlock(text []byte, i int, into any) bool {
	if len(text) < (i+1)*journalBlock {
		return false
	}
	line, _, _ := bytes.Cut(text[i*journalBlock:(i+1)*journalBlock], []byte("\n"))
	at := bytes.LastIndexByte(line, ' ')
	if at < 0 || string(line[at+1:]) != checksumOf(line[:at]) {
		return false
	}
	return json.Unmarshal(line[:at], into) == nil
}

func checksumOf(line []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(line, castagnoli)) }

func encodeBlock(v any) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	line = append(append(append(line, ' '), checksumOf(line)...), '\n')
	if len(line) > journalBlock {
		return nil, fmt.Errorf("a record of %d bytes is beyond its block", len(line))
	}
	p := bytes.Repeat([]byte{' '}, journalBlock)
	p[journalBlock-1] = '\n'
	copy(p, line)
	return p, nil
}

// lockJournal opens or makes the file and is its only user until it is closed: the
// lock lives as long as the copy, also one whose target is a device or a server.
func lockJournal(path string) (*journal, error) {
	for range 10 {
		f, err := openJournalFile(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, err
		}
		named, err := lockNamed(f, path)
		if named {
			return &journal{f: f, path: path}, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("other copies make and remove it all the time")
}

// lockNamed locks f, and reports whether path still is its name: a copy that ended may
// have removed it between our opening and our locking it, and a third one made another.
func lockNamed(f *os.File, path string) (bool, error) {
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, errors.New("in use by another copy; wait for its end, or end it")
	case err != nil:
		return false, fmt.Errorf("cannot be locked there, name another place by --journal: %w", err)
	}
	mine, err1 := f.Stat()
	named, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, named), nil
}

// takeOver reads what an earlier run left if the copy is to be resumed and check agrees;
// else the journal begins anew.
func (j *journal) takeOver(head journalHead, resume bool, check func(old journalHead) error) (journalState, error) {
	s, err := readJournal(j.f)
	if IsOldJournal(err) && !resume {
		err = nil
	}
	if err != nil {
		return s, err
	}
	if resume && s.valid {
		return s, check(s.head)
	}
	p, err := encodeBlock(head)
	if err == nil {
		err = j.f.Truncate(0)
	}
	if err == nil {
		_, err = j.f.WriteAt(append(p, bytes.Repeat([]byte{'\n'}, journalSize-len(p))...), 0)
	}
	if err == nil {
		err = j.f.Sync()
	}
	return journalState{head: head}, err
}

// write replaces the older block of a pair.
func (j *journal) write(first int, m journalMark, sync bool) error {
	p, err := encodeBlock(m)
	if err == nil {
		_, err = j.f.WriteAt(p, (int64(first)+m.Seq%2)*journalBlock)
	}
	if err == nil && sync {
		err = unix.Fdatasync(int(j.f.Fd()))
	}
	return err
}

// sending records that requests up to end are about to be sent.
func (j *journal) sending(end int64) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if end > j.issued.Upto {
		if err := j.mark(end + issuedStep); err != nil && j.err == nil {
			j.err = err
		}
	}
}

func (j *journal) mark(upto int64) error {
	j.issued = journalMark{j.issued.Seq + 1, upto}
	return j.write(issuedBlocks, j.issued, j.syncIssued)
}

// wrote counts what an earlier run may already have sent.
func (j *journal) wrote(off, n int64) {
	if j != nil && off < j.sentTo {
		j.resent.Add(min(n, j.sentTo-off))
	}
}

// advance records that all below off is safe; the target has been flushed. sent, if not
// 0, is where a copy that ends here has come to.
func (j *journal) advance(off, sent int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil && sent > 0 {
		j.err = j.mark(sent)
	}
	if j.err != nil || off <= j.done.Upto {
		return j.err
	}
	m := journalMark{j.done.Seq + 1, off}
	if err := j.write(doneBlocks, m, true); err != nil {
		return err
	}
	j.done = m
	return nil
}

func (j *journal) close() {
	if j != nil && j.f != nil {
		_ = j.f.Close() // every block that matters is synced
		j.f = nil
	}
}

// remove ends a journal that has nothing to say any more; it is still locked, so nobody else's goes.
func (j *journal) remove() error {
	if j == nil {
		return nil
	}
	if err := os.Remove(j.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its journal remains: %w", err)
	}
	return nil
}

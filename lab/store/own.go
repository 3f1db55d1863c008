package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxLedger bounds what is read of one; a large experiment writes some 100 KiB.
const maxLedger = 16 << 20

// readOwn reads a file that nobody but this user, or root, can have written: by what it
// says processes are killed, and devices overwritten.
func readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a link: %s", path, notOurs)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if why := foreign(&st, os.Geteuid()); why != "" {
		return nil, fmt.Errorf("%s %s: %s", path, why, notOurs)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxLedger+1))
	if err == nil && len(text) > maxLedger {
		err = fmt.Errorf("%s is longer than %d bytes: %s", path, maxLedger, notOurs)
	}
	return text, err
}

const notOurs = "no run of this user wrote it, so nothing that it says is undone; look into it and remove it, or use another folder"

// foreign says why somebody else than the user may have written a file, or "".
func foreign(st *unix.Stat_t, user int) string {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "is no regular file"
	case int64(st.Uid) != int64(user):
		return fmt.Sprintf("belongs to user %d, not to %d", st.Uid, user)
	case st.Mode&0o022 != 0:
		return fmt.Sprintf("can be written by others (mode %04o)", st.Mode&0o7777)
	case st.Nlink != 1:
		return "has another name"
	}
	return ""
}

// writeNew makes a file that was not there, so that it is not written through a link
// that somebody put in its place.
func writeNew(path string, text []byte) error {
	if err := removeFile(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

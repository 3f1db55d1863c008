package server

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vmdisk/vmdisk/internal/confine"
)

// DropPrivileges makes the process run as the configured user, who is given the
// run directory, the log and the control socket first. It does nothing unless
// the process is root and [daemon] drop_privileges is on.
func (s *Server) DropPrivileges() error {
	if os.Geteuid() != 0 || !s.cfg.Daemon.DropPrivileges {
		return nil
	}
	a, err := confine.LookupUser(s.cfg.Daemon.UserName)
	if err != nil {
		return fmt.Errorf("drop privileges: %w: create the user, or set drop_privileges = false in [daemon]", err)
	}
	if a.GID, err = confine.LookupGroup(s.cfg.Daemon.GroupName); err != nil {
		return fmt.Errorf("drop privileges: %w: create the group, or set drop_privileges = false in [daemon]", err)
	}
	for _, f := range s.logFiles {
		if err := f.giveTo(a.UID, a.GID); err != nil {
			return fmt.Errorf("drop privileges: %w", err)
		}
	}
	if err := give(s.cfg.Daemon.RunDir, unix.S_IFDIR, a.UID, a.GID); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if s.cfg.Control.Enable && strings.EqualFold(s.cfg.Control.Transport, "unix") {
		if err := give(s.cfg.Control.Socket, unix.S_IFSOCK, a.UID, a.GID); err != nil {
			return fmt.Errorf("drop privileges: %w", err)
		}
	}
	if err := a.Become(); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	return nil
}

// give changes the owner of what is at path if it is of the type that is wanted and has
// that one name: the user may have put a link there at an earlier run, and what that
// leads to is not his. It need not exist.
func give(path string, kind uint32, uid, gid int) error {
	if path == "" || path[0] == 0 {
		return nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != kind || kind != unix.S_IFDIR && st.Nlink != 1 {
		return fmt.Errorf("%s: it is a link or something else than was expected: remove it", path)
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

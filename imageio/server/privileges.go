package server

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// DropPrivileges makes the process run as the configured user, who is given the
// run directory, the log and the control socket first. It does nothing unless
// the process is root and [daemon] drop_privileges is on.
func (s *Server) DropPrivileges() error {
	if os.Geteuid() != 0 || !s.cfg.Daemon.DropPrivileges {
		return nil
	}
	u, err := user.Lookup(s.cfg.Daemon.UserName)
	if err != nil {
		return fmt.Errorf("drop privileges: %w: create the user, or set drop_privileges = false in [daemon]", err)
	}
	g, err := user.LookupGroup(s.cfg.Daemon.GroupName)
	if err != nil {
		return fmt.Errorf("drop privileges: %w: create the group, or set drop_privileges = false in [daemon]", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(g.Gid)
	for _, f := range s.logFiles {
		if err := f.giveTo(uid, gid); err != nil {
			return fmt.Errorf("drop privileges: %w", err)
		}
	}
	if err := give(s.cfg.Daemon.RunDir, unix.S_IFDIR, uid, gid); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if s.cfg.Control.Enable && strings.EqualFold(s.cfg.Control.Transport, "unix") {
		if err := give(s.cfg.Control.Socket, unix.S_IFSOCK, uid, gid); err != nil {
			return fmt.Errorf("drop privileges: %w", err)
		}
	}
	return setUser(u, uid, gid)
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

// setUser takes on the user's groups, group and id, in that order, since after
// the last nothing can be changed any more.
func setUser(u *user.User, uid, gid int) error {
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	groups := make([]int, 0, len(ids))
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			groups = append(groups, n)
		}
	}
	if err = syscall.Setgroups(groups); err == nil {
		if err = syscall.Setgid(gid); err == nil {
			err = syscall.Setuid(uid)
		}
	}
	if err != nil {
		return fmt.Errorf("drop privileges to %s: %w", u.Username, err)
	}
	return nil
}

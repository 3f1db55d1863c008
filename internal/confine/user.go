package confine

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Account is whom a process becomes.
type Account struct {
	Name     string
	UID, GID int
	// Groups are the supplementary groups.
	Groups []int
}

// LookupUser finds a user by name or number. A number needs no entry; its group is
// then the one of the same number.
func LookupUser(name string) (Account, error) {
	if name == "" {
		return Account{}, errors.New("want a user's name or number")
	}
	u, err := user.Lookup(name)
	if n, ok := id(name); ok && err != nil {
		if u, err = user.LookupId(name); err != nil {
			return Account{Name: name, UID: n, GID: n}, nil
		}
	}
	if err != nil {
		return Account{}, fmt.Errorf("user %q: %w", name, err)
	}
	a := Account{Name: u.Username}
	uid, okUser := id(u.Uid)
	gid, okGroup := id(u.Gid)
	if !okUser || !okGroup {
		return Account{}, fmt.Errorf("user %q has the ids %q and %q, which are no numbers", name, u.Uid, u.Gid)
	}
	a.UID, a.GID = uid, gid
	groups, err := u.GroupIds()
	if err != nil {
		return Account{}, fmt.Errorf("groups of user %q: %w", name, err)
	}
	for _, g := range groups {
		if n, ok := id(g); ok {
			a.Groups = append(a.Groups, n)
		}
	}
	return a, nil
}

// LookupGroup finds a group by name or number.
func LookupGroup(name string) (gid int, err error) {
	if n, ok := id(name); ok {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	n, ok := id(g.Gid)
	if !ok {
		return 0, fmt.Errorf("group %q has the id %q, which is no number", name, g.Gid)
	}
	return n, nil
}

// LookupOwner reads USER, USER:GROUP or :GROUP; what is left out is -1.
func LookupOwner(text string) (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, both := strings.Cut(text, ":")
	if name == "" && group == "" {
		return 0, 0, errors.New("want USER, USER:GROUP or :GROUP")
	}
	if name != "" {
		a, err := LookupUser(name)
		if err != nil {
			return 0, 0, err
		}
		uid = a.UID
	}
	if both && group != "" {
		if gid, err = LookupGroup(group); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// id reads a number that is a user or a group; the highest one stands for none.
func id(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n != 1<<32-1
}

// Become takes on the account's groups, group and user, in that order, since after
// the last nothing can be changed any more. All threads change.
func (a Account) Become() error {
	err := syscall.Setgroups(a.Groups)
	if err == nil {
		err = syscall.Setgid(a.GID)
	}
	if err == nil {
		err = syscall.Setuid(a.UID)
	}
	if err != nil {
		return fmt.Errorf("become user %s: %w", a.Name, err)
	}
	if a.UID != 0 && (os.Geteuid() != a.UID || syscall.Setuid(0) == nil) {
		return fmt.Errorf("become user %s: this process can still become root", a.Name)
	}
	return nil
}

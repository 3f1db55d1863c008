package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/vmdisk/vmdisk/internal/confine"
	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// socketFlags say who may connect to a server's unix sockets.
type socketFlags struct {
	mode, owner string
	peers       []string
}

func (s *socketFlags) register(fl *pflag.FlagSet) {
	fl.Var((*named)(&s.mode), "socket-mode", "permissions of unix sockets, octal, whatever the umask (default: as the umask has it)")
	fl.Var((*named)(&s.owner), "socket-owner", "give unix sockets to USER, USER:GROUP or :GROUP; names or numbers")
	fl.StringArrayVar(&s.peers, "socket-uid", nil, "let only this user connect to unix sockets, name or number; repeatable")
}

// options reads the flags; guarded says that TLS is required.
func (s *socketFlags) options(guarded bool) (o unixsock.Options, err error) {
	o.Guarded = guarded
	if s.mode != "" {
		n, err := strconv.ParseUint(s.mode, 8, 32)
		if err != nil || n > 0o777 {
			return o, usagef("--socket-mode %s: want permissions such as 0660", s.mode)
		}
		mode := fs.FileMode(n)
		o.Mode = &mode
	}
	if s.owner != "" {
		uid, gid, err := confine.LookupOwner(s.owner)
		if err != nil {
			return o, usagef("--socket-owner %s: %w", s.owner, err)
		}
		o.Owner = &unixsock.Owner{UID: uid, GID: gid}
	}
	for _, name := range s.peers {
		a, err := confine.LookupUser(name)
		if err != nil {
			return o, usagef("--socket-uid %s: %w", name, err)
		}
		o.Peers = append(o.Peers, a.UID)
	}
	return o, nil
}

// check refuses options that some listener would not honour, before any is opened.
func (s *socketFlags) check(addrs []string, given []net.Listener, private bool) error {
	paths, others := 0, ""
	for _, a := range addrs {
		if unixAddr(a) {
			paths++
		} else {
			others = a
		}
	}
	units := 0
	for _, l := range given {
		if l.Addr().Network() == "unix" {
			units++
		} else {
			others = l.Addr().String()
		}
	}
	switch {
	case s.mode == "" && s.owner == "" && len(s.peers) == 0:
	case private:
		return usagef("--socket-mode, --socket-owner and --socket-uid are for sockets that have a name; add --nbd unix:PATH")
	case paths+units == 0:
		return usagef("--socket-mode, --socket-owner and --socket-uid are for unix sockets, and there is none; add --nbd unix:PATH")
	case len(s.peers) > 0 && others != "":
		return usagef("--socket-uid cannot tell who connects to %s; leave that address out", others)
	case units > 0 && (s.mode != "" || s.owner != ""):
		return usagef("--socket-mode and --socket-owner do not change sockets of the service manager: set SocketMode=, SocketUser= and SocketGroup= in its unit")
	}
	return nil
}

// explainOpen names the flags that a refused abstract socket wants.
func explainOpen(err error) error {
	if errors.Is(err, unixsock.ErrOpenToAll) {
		return usage(fmt.Errorf("%w (--tls-cert and --tls-key with --tls require, --socket-uid, --nbd unix:PATH)", err))
	}
	if errors.Is(err, unixsock.ErrNoPermissions) {
		return usage(err)
	}
	return err
}

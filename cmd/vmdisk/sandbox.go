package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/vmdisk/vmdisk/diskurl"
	imageio "github.com/vmdisk/vmdisk/imageio/server"
	"github.com/vmdisk/vmdisk/internal/confine"
	"github.com/vmdisk/vmdisk/internal/unixsock"
)

// sandboxFlags say what a server gives up once it has opened all that it serves.
type sandboxFlags struct {
	mode        *choice
	user, group string
}

const (
	sandboxAuto = "auto"
	sandboxOn   = "on"
	sandboxOff  = "off"
)

func newSandboxFlag() *choice { return newChoice(sandboxAuto, sandboxAuto, sandboxOn, sandboxOff) }

const sandboxHelp = "open nothing new and gain no privileges once all is open: auto (as far as the kernel can), on (or fail) or off"

func (s *sandboxFlags) register(fl *pflag.FlagSet) {
	s.mode = newSandboxFlag()
	fl.Var(s.mode, "sandbox", sandboxHelp)
	fl.Var((*named)(&s.user), "user", "become this user, name or number, once disks and sockets are open; the command of --run too")
	fl.Var((*named)(&s.group), "group", "become this group (default: the user's groups)")
}

// account is whom the server becomes, nil if it stays who it is.
func (s *sandboxFlags) account() (*confine.Account, error) {
	if s.user == "" && s.group == "" {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, usagef("--user and --group are for root: nobody else can become another user")
	}
	a := confine.Account{Name: strconv.Itoa(os.Geteuid()), UID: os.Geteuid(), GID: os.Getegid()}
	var err error
	if s.user != "" {
		if a, err = confine.LookupUser(s.user); err != nil {
			return nil, usagef("--user: %w", err)
		}
	}
	if s.group != "" {
		if a.GID, err = confine.LookupGroup(s.group); err != nil {
			return nil, usagef("--group: %w", err)
		}
		a.Groups = []int{a.GID}
	}
	return &a, nil
}

// confined is called when a server has restricted itself. Tests replace it.
var confined = func() {}

// restrict gives up what the server does not need any more; told is called where the
// kernel lacks the means.
func (s *sandboxFlags) restrict(needs confine.Needs, a *confine.Account, told func(string)) error {
	if a != nil {
		if err := a.Become(); err != nil {
			return err
		}
	}
	if err := restrictTo(s.mode.value, needs, told); err != nil {
		return err
	}
	confined()
	return nil
}

// landlocked: the kernel can restrict which files are opened. Tests replace it.
var landlocked = confine.Available

func restrictTo(mode string, needs confine.Needs, told func(string)) error {
	if mode == sandboxOff {
		return nil
	}
	if !landlocked() {
		if mode == sandboxOn {
			return errors.New("--sandbox on: this kernel has no Landlock (5.13, and \"landlock\" in its lsm= list); use --sandbox auto, which does what can be done")
		}
		told("this kernel has no Landlock: files could still be opened")
	}
	return confine.Restrict(needs)
}

// needs is what serve does after its start: remove its sockets and its pid file, and
// find lost servers behind its disks again.
func (f *serveFlags) needs(disks []string, fronts []frontEnd) confine.Needs {
	n := confine.Needs{Signals: f.run != ""}
	for _, front := range fronts {
		front.needs(&n)
	}
	if f.pidFile != "" {
		n.Remove = append(n.Remove, filepath.Dir(f.pidFile))
	}
	for _, d := range disks {
		if u, err := diskurl.Parse(d); err == nil {
			reach(&n, u)
		}
	}
	n.Capabilities = f.removing(n.Remove)
	return n
}

// resolver are the files by which Go finds the address of a host.
var resolver = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/run/systemd/resolve"}

// reach adds what connecting to the server of u takes, again and again.
func reach(n *confine.Needs, u diskurl.URL) {
	switch network, address := u.Server(); network {
	case "unix":
		n.Abstract = n.Abstract || unixsock.Abstract(address)
		if dir := unixsock.Dir(address); dir != "" {
			n.Sockets = append(n.Sockets, dir)
		}
	case "tcp":
		host, port, err := net.SplitHostPort(address)
		number, convErr := strconv.ParseUint(port, 10, 16)
		if err != nil || convErr != nil {
			n.AnyPort = true
		}
		n.Ports = append(n.Ports, uint16(number))
		if net.ParseIP(host) == nil {
			n.Read = append(n.Read, resolver...)
			n.Ports = append(n.Ports, 53)
		}
	case "any":
		n.AnyPort, n.Abstract = true, true
		n.Sockets = append(n.Sockets, "/")
		n.Read = append(n.Read, resolver...)
	}
}

// removing are the capabilities by which root removes its sockets from folders of others.
func (f *serveFlags) removing(dirs []string) (kept []cap.Value) {
	for _, dir := range dirs {
		var st unix.Stat_t
		if dir == "" || unix.Stat(dir, &st) != nil {
			continue
		}
		if int(st.Uid) != os.Geteuid() {
			kept = append(kept, cap.DAC_OVERRIDE)
		}
		if st.Mode&unix.S_ISVTX != 0 && f.sockets.owner != "" {
			kept = append(kept, cap.FOWNER)
		}
	}
	return kept
}

// daemonNeeds is what the daemon does after its start. A ticket names any file or
// server, so all files that exist stay open to it, as far as its user may; it makes
// none but its log's, and runs nothing. What lets root open others' files stays where it
// goes on as root (drop_privileges = false).
func daemonNeeds(cfg *imageio.Config) confine.Needs {
	n := confine.Needs{Existing: true, AnyPort: true, Abstract: true, Capabilities: []cap.Value{cap.DAC_OVERRIDE, cap.DAC_READ_SEARCH}}
	for _, file := range cfg.Log.Files() {
		n.Write = append(n.Write, filepath.Dir(file))
	}
	nbd, _ := strings.CutPrefix(cfg.NBD.Address, "unix:")
	for _, socket := range []string{cfg.Local.Socket, cfg.Control.Socket, nbd} {
		if dir := unixsock.Dir(socket); filepath.IsAbs(socket) && dir != "" {
			n.Remove = append(n.Remove, dir)
		}
	}
	return n
}

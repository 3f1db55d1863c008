package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Needs is what a process still does after it has restricted itself. The zero value
// opens no file, removes none, and makes no connection.
type Needs struct {
	// Remove are folders in which files are removed, such as a socket at the end.
	Remove []string
	// RemoveDirs are folders in which folders are removed.
	RemoveDirs []string
	// Read are files that are read; those that do not exist are left out.
	Read []string
	// Existing lets it open, read and write every file that exists, by name.
	Existing bool
	// Write are folders in which files are made, renamed and removed.
	Write []string
	// Sockets are folders with unix sockets that it connects to.
	Sockets []string
	// Ports are the TCP ports that it connects to, AnyPort all of them.
	Ports    []uint16
	AnyPort  bool
	Abstract bool // it connects to abstract sockets
	Signals  bool // it signals processes that it started before
	// Capabilities that it keeps, if it has them.
	Capabilities []cap.Value
}

// required is the kernel's version of Landlock that the rules are written for; of an
// older one all that it knows is used.
var required = landlock.V9

// abi asks the kernel for its version of Landlock, 0 for none. Tests replace it.
var abi = func() int {
	n, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return n
}

// Available reports whether the kernel can restrict which files a process opens.
func Available() bool { return abi() > 0 }

// Restrict takes from all threads of this process, for good, what n does not name:
// opening files and connecting (by Landlock, as far as the kernel has it), the
// capabilities, and the way to new ones. What is open stays usable.
func Restrict(n Needs) error {
	// What Go would open when it first prints a time.
	_, _ = time.Now().Zone()
	raiseMemlock()
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("refuse new privileges: %w", errno)
	}
	if Available() {
		if err := n.landlock(); err != nil {
			return fmt.Errorf("restrict the files that this process opens: %w", err)
		}
	}
	return n.dropCapabilities()
}

const (
	makeAndRemove = ll.AccessFSMakeReg | ll.AccessFSRemoveFile | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSReadFile
	useExisting   = ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSIoctlDev
)

func (n Needs) landlock() error {
	config := landlock.Config{HandledAccessFS: required.HandledAccessFS, HandledAccessNet: required.HandledAccessNet}
	if n.AnyPort {
		config.HandledAccessNet = ll.AccessNetBindTCP
	}
	if !n.Signals {
		config.Scoped |= ll.ScopeSignal
	}
	if !n.Abstract {
		config.Scoped |= ll.ScopeAbstractUnixSocket
	}
	return config.BestEffort().Restrict(n.rules()...)
}

func (n Needs) rules() []landlock.Rule {
	var rules []landlock.Rule
	add := func(access landlock.AccessFSSet, paths []string) {
		for _, p := range existing(paths) {
			rules = append(rules, landlock.PathAccess(access, p))
		}
	}
	add(ll.AccessFSRemoveFile, n.Remove)
	add(ll.AccessFSRemoveDir, n.RemoveDirs)
	add(ll.AccessFSReadFile, n.Read)
	add(makeAndRemove, n.Write)
	add(ll.AccessFSResolveUnix, n.Sockets)
	if n.Existing {
		add(useExisting|ll.AccessFSResolveUnix, []string{"/"})
	}
	if !n.AnyPort {
		for _, port := range n.Ports {
			rules = append(rules, landlock.ConnectTCP(port))
		}
	}
	return rules
}

// existing leaves out what is not there, and what is named twice.
func existing(paths []string) []string {
	var out []string
	for _, p := range paths {
		if abs, err := filepath.Abs(p); err == nil {
			p = abs
		}
		if _, err := os.Stat(p); err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// raiseMemlock has io_uring register its buffers without CAP_IPC_LOCK, as far as this
// process may. What it locks is bounded by what it has.
func raiseMemlock() {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)
}

func (n Needs) dropCapabilities() error {
	now := cap.GetProc()
	kept := cap.NewSet()
	for _, c := range n.Capabilities {
		if has, err := now.GetFlag(cap.Permitted, c); err == nil && has {
			if err := kept.SetFlag(cap.Permitted, true, c); err != nil {
				return err
			}
			if err := kept.SetFlag(cap.Effective, true, c); err != nil {
				return err
			}
		}
	}
	if same(now, kept) {
		return nil // a service manager's filter of system calls may refuse what changes nothing
	}
	if err := kept.SetProc(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

func same(a, b *cap.Set) bool {
	d, err := a.Cf(b)
	return err == nil && d == 0
}

package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Daemon is a running `vmdisk daemon`.
type Daemon struct {
	*Proc
	Dir    string // its folder: sockets, log, certificates
	Remote string // https://127.0.0.1:PORT, or http://
	bin    string
}

// StartDaemon starts the transfer daemon of the program bin, with its files
// below dir; with certificates for 127.0.0.1 and localhost if tls is set. conf is
// added to its configuration.
func StartDaemon(bin, dir string, tls bool, conf string) (*Daemon, error) {
	sub, err := os.MkdirTemp(dir, "d")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Dir: sub, bin: bin}
	text := fmt.Sprintf("[daemon]\ndrop_privileges = false\n[tls]\nenable = %t\nkey_file = %s\ncert_file = %s\n[backend_file]\ncache = writeback\n"+
		"[remote]\nhost = 127.0.0.1\nport = 0\n[local]\nsocket = %s\n[control]\nsocket = %s\n[logger_root]\nlevel = DEBUG\n[handler_logfile]\nargs = (%q,)\n",
		tls, d.file("server-key.pem"), d.file("server-cert.pem"), d.LocalSocket(), d.file("control"), d.Log())
	err = errors.Join(Certs(sub), os.MkdirAll(d.file("etc/conf.d"), 0o755),
		os.WriteFile(d.file("etc/conf.d/50-base.conf"), []byte(text), 0o600),
		os.WriteFile(d.file("etc/conf.d/60-more.conf"), []byte(conf), 0o600))
	if err != nil {
		return nil, err
	}
	if d.Proc, err = Start("vmdisk daemon", []string{bin, "daemon", "--conf-dir", d.file("etc")}, nil); err != nil {
		return nil, err
	}
	if err := d.await(tls); err != nil {
		d.Kill()
		return nil, err
	}
	return d, nil
}

func (d *Daemon) file(name string) string { return filepath.Join(d.Dir, name) }

// CA is the file of the certificate that signed the daemon's.
func (d *Daemon) CA() string { return d.file("ca-cert.pem") }

// Log is the daemon's log file.
func (d *Daemon) Log() string { return d.file("daemon.log") }

// LocalSocket is the unix socket of the local service.
func (d *Daemon) LocalSocket() string { return d.file("local") }

// Control is the address of the control service, for `vmdisk ticket --control`.
func (d *Daemon) Control() string { return "unix:" + d.file("control") }

var remoteListens = regexp.MustCompile(`remote\.service listening on (\S+)`)

// await waits until the daemon serves, and finds its port.
func (d *Daemon) await(tls bool) error {
	scheme := "http://"
	if tls {
		scheme = "https://"
	}
	deadline := time.After(time.Minute)
	for {
		log, _ := os.ReadFile(d.Log()) // not there at first
		if m := remoteListens.FindSubmatch(log); m != nil && strings.Contains(string(log), "Ready for requests") {
			d.Remote = scheme + string(m[1])
			return nil
		}
		select {
		case <-d.Done():
			return fmt.Errorf("vmdisk daemon ended at once: %s", d.Stderr())
		case <-deadline:
			return fmt.Errorf("vmdisk daemon is not ready within a minute: %s", log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Ticket installs a ticket for a path or URL and returns its id. args are further
// arguments of `vmdisk ticket add`.
func (d *Daemon) Ticket(ctx context.Context, target string, args ...string) (string, error) {
	r, err := Run(ctx, append([]string{d.bin, "ticket", "add", target, "--control", d.Control()}, args...)...)
	return strings.TrimSpace(r.Stdout), err
}

// Image is the URL of a ticket's image.
func (d *Daemon) Image(ticket string) string { return d.Remote + "/images/" + ticket }

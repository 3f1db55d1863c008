package diskurl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// TLS names the PEM files of a TLS client. The zero value trusts the system's
// certificate authorities and shows no certificate.
type TLS struct {
	// CA are the authorities to trust.
	CA string
	// Cert and Key are the client's own, both or neither.
	Cert, Key string
	// Hostname is the name that the server's certificate must have; the URL's
	// host if empty.
	Hostname string
}

// Guard says what of TLS there is about an address of a server.
type Guard struct {
	// TLS: the connection is guarded, or fails.
	TLS bool
	// Own: the URL brings certificates of its own.
	Own bool
	// Secured is how the URL begins that is guarded.
	Secured string
}

// guard is empty where there is no server.
func (u URL) guard() Guard {
	if g, ok := u.Addr.(guardedAddr); ok {
		return g.Guard()
	}
	return Guard{}
}

// secure reports whether a URL is reached by TLS, plain whether it names a server without it.
func (u URL) secure() bool { return u.guard().TLS }

func (u URL) plain() bool { return u.guard() != (Guard{}) && !u.guard().TLS }

// check refuses options that would have no effect on how u is reached: whoever
// gives them believes that the connection is protected.
func (t TLS) check(u URL) error {
	switch g := u.guard(); {
	case u.plain() && t != (TLS{}):
		return &SyntaxError{What: "disk URL", Input: u.Redacted(), Err: fmt.Errorf("--%s is given, but this URL does not use TLS; write %s", t.given(), g.Secured)}
	case g.TLS && !g.Own && (t.Cert == "") != (t.Key == ""):
		return &SyntaxError{What: "disk URL", Input: u.Redacted(), Err: errors.New("a TLS certificate and its key go together (--tls-cert, --tls-key); only one is given")}
	}
	return nil
}

// given is the first option that is set.
func (t TLS) given() string {
	switch {
	case t.CA != "":
		return "tls-ca"
	case t.Cert != "":
		return "tls-cert"
	case t.Key != "":
		return "tls-key"
	}
	return "tls-hostname"
}

// Split gives the options to two disks of one command: where only one of them is
// reached by TLS they are meant for that one.
func (t TLS) Split(a, b string) (forA, forB TLS) {
	ua, errA := Parse(a)
	ub, errB := Parse(b)
	switch {
	case errA != nil || errB != nil: // told when they are opened
	case ua.secure() && ub.plain():
		return t, TLS{}
	case ub.secure() && ua.plain():
		return TLS{}, t
	}
	return t, t
}

// The names that the NBD tools use inside a tls-certificates directory.
const (
	dirCA   = "ca-cert.pem"
	dirCert = "client-cert.pem"
	dirKey  = "client-key.pem"
)

// tls is t as the address has it: what the URL says goes before.
func (a NBDAddr) tls(t TLS) TLS {
	if a.TLSDir != "" {
		t.CA, t.Cert, t.Key = filepath.Join(a.TLSDir, dirCA), "", ""
		if cert := filepath.Join(a.TLSDir, dirCert); exists(cert) {
			t.Cert, t.Key = cert, filepath.Join(a.TLSDir, dirKey)
		}
	}
	if a.TLSHostname != "" {
		t.Hostname = a.TLSHostname
	}
	return t
}

// config builds the configuration of a client.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.Hostname}
	if t.CA != "" {
		pool, err := LoadCA(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
	}
	if (t.Cert == "") != (t.Key == "") {
		return nil, fmt.Errorf("a TLS certificate and its key go together; only one is given")
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("TLS certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// LoadCA reads certificate authorities from a PEM file.
func LoadCA(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLS authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS authorities: %s holds no PEM certificate", path)
	}
	return pool, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

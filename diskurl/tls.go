package diskurl

import (
	"crypto/tls"
	"crypto/x509"
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

// The names that the NBD tools use inside a tls-certificates directory.
const (
	dirCA   = "ca-cert.pem"
	dirCert = "client-cert.pem"
	dirKey  = "client-key.pem"
)

// config builds the configuration for u; what the URL says goes before t.
func (t TLS) config(u URL) (*tls.Config, error) {
	if u.TLSDir != "" {
		t.CA, t.Cert, t.Key = filepath.Join(u.TLSDir, dirCA), "", ""
		if cert := filepath.Join(u.TLSDir, dirCert); exists(cert) {
			t.Cert, t.Key = cert, filepath.Join(u.TLSDir, dirKey)
		}
	}
	if u.TLSHostname != "" {
		t.Hostname = u.TLSHostname
	}
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

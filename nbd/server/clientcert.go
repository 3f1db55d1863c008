package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// verifyClients returns a configuration that verifies clients' certificates as c asks for,
// by itself. crypto/tls would name the authorities in its request; GnuTLS, and so libnbd and
// QEMU, then sends no RSA certificate under TLS 1.3, since the request lists only PSS
// signatures. The verification runs for resumed sessions as well.
func verifyClients(c *tls.Config) *tls.Config {
	if c == nil || c.ClientAuth < tls.VerifyClientCertIfGiven {
		return c
	}
	given, own := c, c.Clone()
	own.ClientAuth, own.ClientCAs = tls.RequireAnyClientCert, nil
	if given.ClientAuth == tls.VerifyClientCertIfGiven {
		own.ClientAuth = tls.RequestClientCert
	}
	own.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verifyClient(given, s.PeerCertificates); err != nil {
			return err
		}
		if given.VerifyConnection != nil {
			return given.VerifyConnection(s)
		}
		return nil
	}
	return own
}

func verifyClient(c *tls.Config, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		if c.ClientAuth == tls.VerifyClientCertIfGiven {
			return nil
		}
		return errors.New("the client has no certificate")
	}
	now := c.Time
	if now == nil {
		now = time.Now
	}
	o := x509.VerifyOptions{
		Roots: c.ClientCAs, Intermediates: x509.NewCertPool(), CurrentTime: now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if o.Roots == nil {
		o.Roots = x509.NewCertPool() // nil would be the system's
	}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(o); err != nil {
		return fmt.Errorf("the client's certificate (%s): %w", chain[0].Subject, err)
	}
	return nil
}

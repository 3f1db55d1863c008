package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// issue makes a certificate for a key, signed by ca, or by itself without one.
func issue(t *testing.T, ca *tls.Certificate, key crypto.Signer, edit func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	edit(tmpl)
	parent, signer := tmpl, crypto.PrivateKey(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func authority(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	c.Subject.CommonName = "authority"
}

// Clients' certificates are verified, though the request names no authority: with the
// names, GnuTLS sends no RSA certificate under TLS 1.3.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for kind, key := range map[string]crypto.Signer{"RSA": rsaKey, "ECDSA": ecKey} {
		ca := issue(t, nil, key, authority)
		stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		other := issue(t, nil, stranger, authority)
		srv, cli := certificate(t)
		srv.ClientAuth, srv.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		srv.ClientCAs.AddCert(ca.Leaf)
		r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, TLS: srv, TLSMode: server.TLSRequire})
		nothing := func(*x509.Certificate) {}
		for name, cert := range map[string]*tls.Certificate{
			"good": issue(t, ca, key, nothing), "none": {}, "wrong authority": issue(t, other, key, nothing),
			"expired":     issue(t, ca, key, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
			"of a server": issue(t, ca, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				cfg := cli.Clone()
				cfg.MinVersion, cfg.MaxVersion = version, version
				cfg.ClientSessionCache = tls.NewLRUClientSessionCache(4)
				named := 0
				cfg.GetClientCertificate = func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					named += len(i.AcceptableCAs)
					return cert, nil
				}
				for try := range 2 { // the second may resume
					if err := enter(r.dial(t).greet(nbd.FlagFixedNewstyle), cfg); (err == nil) != (name == "good") {
						t.Errorf("%s, %s, %s, try %d: %v", kind, name, tls.VersionName(version), try, err)
					}
				}
				if named > 0 {
					t.Errorf("the request names %d authorities", named)
				}
			}
		}
	}
}

// enter begins TLS and asks for the export.
func enter(p *peer, cfg *tls.Config) error {
	p.want(nbd.OptStartTLS, nil, nbd.RepAck)
	tc := tls.Client(p.conn, cfg)
	if err := tc.Handshake(); err != nil {
		return err
	}
	if _, err := tc.Write(nbd.AppendOption(nil, nbd.OptInfo, nbd.AppendGo(nil, "d", nil))); err != nil {
		return err
	}
	b := make([]byte, nbd.OptionReplyHeaderSize)
	if _, err := tc.Read(b); err != nil {
		return err
	}
	h, err := nbd.DecodeOptionReplyHeader(b)
	if err == nil && h.Type.IsError() {
		err = fmt.Errorf("refused: %v", h.Type)
	}
	return err
}

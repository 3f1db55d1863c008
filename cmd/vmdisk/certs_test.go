package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// makeCerts is the script command `certs DIR`: ca-cert.pem, and certificates
// and keys named server-* (for localhost) and client-* that it signed.
func makeCerts(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(writeCerts(dir))
}

func writeCerts(dir string) (err error) {
	check := func(e error) {
		if err == nil {
			err = e
		}
	}
	key, e := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(e)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, e := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	check(e)
	check(writePEM(filepath.Join(dir, "ca-cert.pem"), "CERTIFICATE", der))
	for i, name := range []string{"server", "client"} {
		leafKey, e := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(e)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		der, e := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, key)
		check(e)
		check(writePEM(filepath.Join(dir, name+"-cert.pem"), "CERTIFICATE", der))
		der, e = x509.MarshalPKCS8PrivateKey(leafKey)
		check(e)
		check(writePEM(filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", der))
	}
	return err
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

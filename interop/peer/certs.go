package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certs writes a new certificate authority and a server's and a client's
// certificate into dir, under the names that nbdkit, libnbd and QEMU look for:
// ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem.
// The server is localhost, 127.0.0.1 and ::1.
func Certs(dir string) error {
	ca, err := newCert(nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "vmdisk test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	})
	if err != nil {
		return err
	}
	server, err := newCert(ca, &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    leafUsage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	client, err := newCert(ca, &x509.Certificate{
		Subject:  pkix.Name{CommonName: "client"},
		KeyUsage: leafUsage, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	for name, c := range map[string]*cert{"ca": ca, "server": server, "client": client} {
		if err := c.write(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// leafUsage: QEMU refuses certificates that may not encipher keys, although with
// ECDSA nobody does.
const leafUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment

type cert struct {
	x509 *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newCert signs the template by ca, or by itself without one.
func newCert(ca *cert, template *x509.Certificate) (*cert, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.x509, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of %s: %w", template.Subject.CommonName, err)
	}
	signed, err := x509.ParseCertificate(der)
	return &cert{x509: signed, key: key}, err
}

func (c *cert) write(dir, name string) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return err
	}
	for kind, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: c.x509.Raw},
		"key":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name+"-"+kind+".pem"), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

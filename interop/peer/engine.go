package peer

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Serve serves h over HTTPS on the loopback interface, with the server's
// certificate of the folder certs (see Certs), until stop is called. It returns the
// origin, https://localhost:PORT.
func Serve(h http.Handler, certs string) (origin string, stop func() error, err error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(certs, "server-cert.pem"), filepath.Join(certs, "server-key.pem"))
	if err != nil {
		return "", nil, err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends with Close
	}()
	stop = func() error {
		err := s.Close()
		<-served
		return err
	}
	return fmt.Sprintf("https://localhost:%d", l.Addr().(*net.TCPAddr).Port), stop, nil
}

// Trusting is a client that trusts the certificates of the PEM file ca.
func Trusting(ca string) (*http.Client, error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate", ca)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}}, nil
}

package main

import (
	"crypto/tls"
	"fmt"

	"github.com/vmdisk/vmdisk/diskurl"
	"github.com/vmdisk/vmdisk/nbd/server"
)

// tlsMode settles who has to use TLS. Options that ask for protection and would
// not get it are refused: serving in plain text is what happens without them.
func (f *serveFlags) tlsMode() (server.TLSMode, error) {
	for _, pair := range []struct{ flag, value, wants, other string }{
		{"--tls-key", f.key, "--tls-cert", f.cert}, {"--tls-cert", f.cert, "--tls-key", f.key},
	} {
		if f.tls.value == "" && pair.value != "" && pair.other == "" {
			return 0, usagef("%s wants %s", pair.flag, pair.wants)
		}
	}
	switch {
	case f.tls.value == "" && f.clientCA != "" && f.cert == "":
		return 0, usagef("--tls-ca wants --tls-cert and --tls-key: clients show their certificates inside of TLS")
	case f.tls.value == "off" && f.clientCA != "":
		return 0, usagef("--tls off contradicts --tls-ca")
	case f.tls.value == "off" && f.cert+f.key != "":
		return 0, usagef("--tls off contradicts --tls-cert and --tls-key")
	case f.tls.value == "off" || f.tls.value == "" && f.cert == "":
		return server.TLSOff, nil
	case f.cert == "" || f.key == "":
		return 0, usagef("--tls %s wants --tls-cert and --tls-key", f.tls.value)
	case f.tls.value == "on" && f.clientCA != "":
		return 0, usagef("--tls on contradicts --tls-ca: clients without TLS need no certificate; use --tls require")
	case f.tls.value == "on":
		return server.TLSOn, nil
	}
	return server.TLSRequire, nil
}

func (f *serveFlags) tlsConfig() (server.Config, error) {
	mode, err := f.tlsMode()
	c := server.Config{TLSMode: mode}
	if err != nil || mode == server.TLSOff {
		return c, err
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return c, fmt.Errorf("TLS certificate: %w", err)
	}
	c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if f.clientCA != "" {
		if c.TLS.ClientCAs, err = diskurl.LoadCA(f.clientCA); err != nil {
			return c, err
		}
		c.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

package client

import (
	"crypto/tls"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/nbd"
)

// TestRefusedTLS: a server that has no place, or that ends, is not one without TLS.
func TestRefusedTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reply nbd.OptionReplyType
		text  string
		noTLS bool
	}{
		{nbd.RepErrUnsupported, "", true},
		{nbd.RepErrPolicy, "", true},
		{nbd.RepErrPolicy, "this server has no TLS", true},
		{nbd.RepErrPolicy, "all 4 connections that this server allows are in use; try again later", false},
		{nbd.RepErrShutdown, "the server ends", false},
	} {
		f := fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
			f.reply(o, c.reply, []byte(c.text))
			return true
		}}
		cfg := f.config(t, nil)
		cfg.TLS = &tls.Config{ServerName: "localhost"}
		_, err := Dial(t.Context(), cfg)
		if err == nil || errors.Is(err, ErrNoTLS) != c.noTLS || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v %q: %v", c.reply, c.text, err)
		}
	}
}

// TestAlertBeforeWriteError: the server's alert is reported, and not that what was written
// after it met a closed connection.
func TestAlertBeforeWriteError(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	closed := make(chan struct{})
	f := fake{option: func(f *fake, o nbd.Option, _ []byte) bool {
		f.reply(o, nbd.RepAck, nil)
		server := tls.Server(f.nc, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13})
		if err := server.Handshake(); err == nil {
			t.Error("the server did not miss the certificate")
		}
		f.nc.Close()
		close(closed)
		return true
	}}
	cfg := f.config(t, nil)
	cfg.TLS, cfg.HandshakeTimeout = &tls.Config{RootCAs: pool, ServerName: "localhost"}, time.Minute
	h, err := connect(t.Context(), &cfg)
	if err == nil {
		<-closed // so that writing fails
		err = h.within(t.Context(), h.open)
		h.nc.Close()
	}
	if err == nil || errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("%v, want the server's alert", err)
	}
}

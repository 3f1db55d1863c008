package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmdisk/vmdisk/disk"
	"github.com/vmdisk/vmdisk/nbd"
	"github.com/vmdisk/vmdisk/nbd/server"
)

func TestInfoAndGoAnswerAlike(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	p := r.dial(t).greet(nbd.FlagFixedNewstyle | nbd.FlagNoZeroes)
	ask := nbd.AppendGo(nil, "d", []nbd.InfoType{nbd.InfoName, nbd.InfoDescription, nbd.InfoBlockSize, 77})
	info := p.want(nbd.OptInfo, ask, nbd.RepAck)
	if got := p.want(nbd.OptGo, ask, nbd.RepAck); !reflect.DeepEqual(got, info) {
		t.Errorf("GO answered %v, INFO %v", got, info)
	}
	var got []nbd.Info
	for _, rep := range info[:len(info)-1] {
		i, err := nbd.DecodeInfo([]byte(rep.data))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i)
	}
	const flags = nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes |
		nbd.FlagSendCache | nbd.FlagSendFastZero | nbd.FlagCanMultiConn
	want := []nbd.Info{
		{Type: nbd.InfoExport, Size: 1 << 20, Flags: flags},
		{Type: nbd.InfoName, Text: "d"},
		{Type: nbd.InfoDescription, Text: "a disk"},
		{Type: nbd.InfoBlockSize, Min: 1, Preferred: 4096, Max: 64 << 20},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("information\n%+v, want\n%+v", got, want)
	}
}

// What is offered depends on the mode, on the export and on the disk.
func TestTransmissionFlags(t *testing.T) {
	t.Parallel()
	plain := memDisk(t, 1<<20)
	weak := disk.New(&below{d: memDisk(t, 1<<20), info: func(i *disk.Info) {
		i.Trim, i.FastZero, i.Zero, i.MultiConn, i.Maps = disk.None, disk.None, disk.None, false, nil
	}}, "weak")
	r := serve(t, server.Config{Exports: []server.Export{
		{Name: "rw", Disk: plain}, {Name: "ro", Disk: plain, ReadOnly: true}, {Name: "weak", Disk: weak},
	}})
	const always = nbd.FlagHasFlags | nbd.FlagSendFlush | nbd.FlagSendFUA | nbd.FlagSendCache
	const rw = always | nbd.FlagSendTrim | nbd.FlagSendWriteZeroes | nbd.FlagSendFastZero | nbd.FlagCanMultiConn
	for _, c := range []struct {
		mode     nbd.Mode
		export   string
		contexts []string
		want     nbd.TransmissionFlags
	}{
		{nbd.Simple, "rw", nil, rw},
		{nbd.Structured, "rw", nil, rw | nbd.FlagSendDF},
		{nbd.Structured, "rw", []string{"base:allocation"}, rw | nbd.FlagSendDF},
		{nbd.Extended, "rw", nil, rw | nbd.FlagSendDF},
		{nbd.Extended, "rw", []string{"base:allocation"}, rw | nbd.FlagSendDF | nbd.FlagBlockStatusPayload},
		{nbd.Simple, "ro", nil, always | nbd.FlagReadOnly | nbd.FlagCanMultiConn},
		{nbd.Simple, "weak", nil, always | nbd.FlagSendWriteZeroes},
	} {
		got := r.dial(t).greet(nbd.FlagFixedNewstyle).haggle(c.mode, c.export, c.contexts...)
		if got != c.want {
			t.Errorf("%v %s %v: flags %#x, want %#x", c.mode, c.export, c.contexts, got, c.want)
		}
	}
}

func TestExportName(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	for _, f := range []nbd.HandshakeFlags{0, nbd.FlagFixedNewstyle, nbd.FlagFixedNewstyle | nbd.FlagNoZeroes} {
		p := r.dial(t).greet(f)
		p.write(nbd.AppendOption(nil, nbd.OptExportName, []byte("d")))
		b := p.read(nbd.ExportNameReplySize(f&nbd.FlagNoZeroes != 0))
		if size, flags, err := nbd.DecodeExportNameReply(b); size != 1<<20 || flags&nbd.FlagHasFlags == 0 || err != nil {
			t.Errorf("flags %v: size %d, %v, %v", f, size, flags, err)
		}
		p.alive()
	}
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.write(nbd.AppendOption(nil, nbd.OptExportName, []byte("other")))
	p.mustClose()
}

func TestDefaultExport(t *testing.T) {
	t.Parallel()
	d := memDisk(t, 1<<20)
	for _, c := range []struct {
		name    string
		cfg     server.Config
		want    nbd.OptionReplyType
		wantFor string
	}{
		{"one", server.Config{Exports: []server.Export{{Name: "a", Disk: d}}}, nbd.RepAck, "a"},
		{"two", server.Config{Exports: []server.Export{{Name: "a", Disk: d}, {Name: "b", Disk: d}}}, nbd.RepErrUnknown, ""},
		{"chosen", server.Config{Default: "b", Exports: []server.Export{{Name: "a", Disk: d}, {Name: "b", Disk: d}}}, nbd.RepAck, "b"},
		{"empty", server.Config{Exports: []server.Export{{Name: "a", Disk: d}, {Name: "", Disk: d}}}, nbd.RepAck, ""},
	} {
		p := serve(t, c.cfg).dial(t).greet(nbd.FlagFixedNewstyle)
		got := p.want(nbd.OptInfo, nbd.AppendGo(nil, "", []nbd.InfoType{nbd.InfoName}), c.want)
		if c.want == nbd.RepAck {
			if i, _ := nbd.DecodeInfo([]byte(got[1].data)); i.Text != c.wantFor {
				t.Errorf("%s: the default is %q", c.name, i.Text)
			}
		}
	}
	for _, cfg := range []server.Config{
		{Default: "x", Exports: []server.Export{{Name: "a", Disk: d}}},
		{Exports: []server.Export{{Name: "a", Disk: d}, {Name: "a", Disk: d}}},
		{Exports: []server.Export{{Name: "a"}}},
		{Exports: []server.Export{{Name: strings.Repeat("x", 4097), Disk: d}}},
		{Exports: []server.Export{{Name: "a", Disk: d}}, TLSMode: server.TLSOn},
		{Exports: []server.Export{{Name: "a", Disk: d}}, TLS: &tls.Config{}}, // would serve in plain text
	} {
		if _, err := server.New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// Options that are answered and then leave the negotiation going.
func TestOptions(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	set := func(name string, q ...string) []byte { return nbd.AppendMetaQuery(nil, name, q) }
	for _, c := range []struct {
		name  string
		first nbd.Option // sent before, unless 0
		opt   nbd.Option
		data  []byte
		want  nbd.OptionReplyType
		more  int // replies before the last
	}{
		{"unknown", 0, 4242, []byte("abc"), nbd.RepErrUnsupported, 0},
		{"peek", 0, nbd.OptPeekExport, nil, nbd.RepErrUnsupported, 0},
		{"list", 0, nbd.OptList, nil, nbd.RepAck, 1},
		{"list with data", 0, nbd.OptList, []byte("x"), nbd.RepErrInvalid, 0},
		{"no TLS", 0, nbd.OptStartTLS, nil, nbd.RepErrPolicy, 0},
		{"TLS with data", 0, nbd.OptStartTLS, []byte("x"), nbd.RepErrInvalid, 0},
		{"info of another", 0, nbd.OptInfo, nbd.AppendGo(nil, "other", nil), nbd.RepErrUnknown, 0},
		{"go to another", 0, nbd.OptGo, nbd.AppendGo(nil, "other", nil), nbd.RepErrUnknown, 0},
		{"go cut short", 0, nbd.OptGo, []byte{0, 0, 0, 9, 'd'}, nbd.RepErrInvalid, 0},
		{"structured with data", 0, nbd.OptStructuredReply, []byte("x"), nbd.RepErrInvalid, 0},
		{"structured twice", nbd.OptStructuredReply, nbd.OptStructuredReply, nil, nbd.RepErrInvalid, 0},
		{"extended with data", 0, nbd.OptExtendedHeaders, []byte("x"), nbd.RepErrInvalid, 0},
		{"extended after structured", nbd.OptStructuredReply, nbd.OptExtendedHeaders, nil, nbd.RepAck, 0},
		{"extended twice", nbd.OptExtendedHeaders, nbd.OptExtendedHeaders, nil, nbd.RepErrInvalid, 0},
		{"structured after extended", nbd.OptExtendedHeaders, nbd.OptStructuredReply, nil, nbd.RepErrExtHeaderReqd, 0},
		{"contexts without structured", 0, nbd.OptSetMetaContext, set("d", "base:allocation"), nbd.RepErrInvalid, 0},
		{"contexts", nbd.OptStructuredReply, nbd.OptSetMetaContext, set("d", "base:allocation", "x-y:z", "qemu:foo"), nbd.RepAck, 1},
		{"no contexts", nbd.OptStructuredReply, nbd.OptSetMetaContext, set("d"), nbd.RepAck, 0},
		{"wildcard is no context", nbd.OptStructuredReply, nbd.OptSetMetaContext, set("d", "base:"), nbd.RepAck, 0},
		{"contexts of another", nbd.OptStructuredReply, nbd.OptSetMetaContext, set("other", "base:allocation"), nbd.RepErrUnknown, 0},
		{"2^32-1 queries", nbd.OptStructuredReply, nbd.OptSetMetaContext, []byte{0, 0, 0, 1, 'd', 255, 255, 255, 255}, nbd.RepErrInvalid, 0},
		{"all contexts", nbd.OptStructuredReply, nbd.OptListMetaContext, set("d"), nbd.RepAck, 1},
		{"wildcard", nbd.OptStructuredReply, nbd.OptListMetaContext, set("d", "base:"), nbd.RepAck, 1},
		{"wildcard without match", nbd.OptStructuredReply, nbd.OptListMetaContext, set("d", "qemu:"), nbd.RepAck, 0},
		{"too much data", 0, nbd.OptInfo, make([]byte, 65537), nbd.RepErrTooBig, 0},
		{"far too much data", 0, 4242, make([]byte, 1<<20), nbd.RepErrTooBig, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := r.dial(t).greet(nbd.FlagFixedNewstyle)
			if c.first != 0 {
				p.want(c.first, nil, nbd.RepAck)
			}
			if got := p.want(c.opt, c.data, c.want); len(got)-1 != c.more {
				t.Errorf("replies %v", got)
			}
			p.want(nbd.OptInfo, nbd.AppendGo(nil, "d", nil), nbd.RepAck)
			p.want(nbd.OptAbort, nil, nbd.RepAck)
			p.mustClose()
		})
	}
}

func TestListNamesAll(t *testing.T) {
	t.Parallel()
	d := memDisk(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{{Name: "a", Description: "first", Disk: d}, {Name: "b", Disk: d}}})
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	var got []string
	for _, rep := range p.want(nbd.OptList, nil, nbd.RepAck) {
		if rep.typ == nbd.RepServer {
			n, text, err := nbd.DecodeServer([]byte(rep.data))
			got = append(got, fmt.Sprint(n, "|", text, "|", err))
		}
	}
	if want := []string{"a|first|<nil>", "b||<nil>"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}

// What ends a negotiation at once.
func TestNegotiationEnds(t *testing.T) {
	t.Parallel()
	// What ends by the bound on time does not end within the test's own.
	r := serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, HandshakeTimeout: time.Hour})
	list := nbd.AppendOption(nil, nbd.OptList, nil)
	for name, b := range map[string][]byte{
		"unknown client flags": {0, 0, 0, 8},
		"bad option magic":     append(nbd.AppendClientFlags(nil, 1), "GET / HTTP/1.1\r\n\r\n"...),
		"option of 4 GiB":      append(nbd.AppendClientFlags(nil, 1), "IHAVEOPT\x00\x00\x00\x06\xff\xff\xff\xff"...),
		"export name of 1 MiB": append(nbd.AppendClientFlags(nil, 1), "IHAVEOPT\x00\x00\x00\x01\x00\x10\x00\x00"...),
		"37 options":           append(nbd.AppendClientFlags(nil, 1), bytes.Repeat(list, 37)...),
		"closed in an option":  append(nbd.AppendClientFlags(nil, 1), list[:9]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := r.dial(t)
			p.read(nbd.GreetingSize)
			_, _ = p.conn.Write(b)
			if strings.HasPrefix(name, "closed") {
				p.conn.Close()
				return
			}
			p.mustClose()
		})
	}
}

func TestThirtyTwoOptions(t *testing.T) {
	t.Parallel()
	p := serveDisk(t, memDisk(t, 1<<20)).dial(t).greet(nbd.FlagFixedNewstyle)
	for range 31 {
		p.want(nbd.OptList, nil, nbd.RepAck)
	}
	p.haggle(nbd.Simple, "d")
	p.alive()
}

// Who lists the exports may ask about each, on the same connection.
func TestListingAsksAboutEach(t *testing.T) {
	t.Parallel()
	const n = 1000
	cfg, d := server.Config{}, memDisk(t, 1<<20)
	for i := range n {
		cfg.Exports = append(cfg.Exports, server.Export{Name: fmt.Sprint("export ", i), Disk: d})
	}
	p := serve(t, cfg).dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptStructuredReply, nil, nbd.RepAck)
	if got := p.want(nbd.OptList, nil, nbd.RepAck); len(got) != n+1 {
		t.Errorf("%d replies to LIST", len(got))
	}
	for _, e := range cfg.Exports {
		p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, e.Name, []string{"base:allocation"}), nbd.RepAck)
		p.want(nbd.OptListMetaContext, nbd.AppendMetaQuery(nil, e.Name, nil), nbd.RepAck)
		p.want(nbd.OptInfo, nbd.AppendGo(nil, e.Name, []nbd.InfoType{nbd.InfoDescription}), nbd.RepAck)
	}
	p.haggle(nbd.Simple, "export 7")
}

// A client that dribbles loses its connection when the time is up, however
// often it sends something; one that was quick is served on.
func TestSlowNegotiation(t *testing.T) {
	t.Parallel()
	r := serve(t, server.Config{
		Exports: []server.Export{{Name: "d", Disk: memDisk(t, 1<<20)}}, HandshakeTimeout: 300 * time.Millisecond,
	})
	quick := r.connect(t, nbd.Simple, "d")
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	for _, b := range nbd.AppendOption(nil, 99, make([]byte, 4096)) {
		if _, err := p.conn.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.mustClose()
	quick.alive()
}

// A SET_META_CONTEXT that fails clears the one before it.
func TestFailedContextsClear(t *testing.T) {
	t.Parallel()
	r := serveDisk(t, memDisk(t, 1<<20))
	status := nbd.Request{Command: nbd.CmdBlockStatus, Length: 4096}
	for name, spoil := range map[string]func(*peer){
		"nothing":      func(*peer) {},
		"other export": func(p *peer) { p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "x", nil), nbd.RepErrUnknown) },
		"malformed":    func(p *peer) { p.want(nbd.OptSetMetaContext, []byte{1}, nbd.RepErrInvalid) },
		"empty":        func(p *peer) { p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "d", nil), nbd.RepAck) },
		"unknown query": func(p *peer) {
			p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "d", []string{"a:b"}), nbd.RepAck)
		},
	} {
		p := r.dial(t).greet(nbd.FlagFixedNewstyle)
		p.want(nbd.OptStructuredReply, nil, nbd.RepAck)
		p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "d", []string{"base:allocation"}), nbd.RepAck)
		spoil(p)
		p.haggle(nbd.Simple, "d")
		p.mode = nbd.Structured
		want := nbd.EINVAL
		if name == "nothing" {
			want = nbd.OK
		}
		if got := p.do(status, nil); got.errno != want {
			t.Errorf("%s: block status answers %v", name, got.errno)
		}
	}
}

// Contexts count only for the export that they were set for.
func TestContextsOfOtherExport(t *testing.T) {
	t.Parallel()
	d := memDisk(t, 1<<20)
	r := serve(t, server.Config{Exports: []server.Export{{Name: "a", Disk: d}, {Name: "b", Disk: d}}})
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptStructuredReply, nil, nbd.RepAck)
	p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "a", []string{"base:allocation"}), nbd.RepAck)
	p.want(nbd.OptGo, nbd.AppendGo(nil, "b", nil), nbd.RepAck)
	p.mode = nbd.Structured
	if got := p.do(nbd.Request{Command: nbd.CmdBlockStatus, Length: 4096}, nil); got.errno != nbd.EINVAL {
		t.Errorf("block status answers %v", got.errno)
	}
}

// certificate returns a server configuration and a client's that trusts it.
func certificate(t testing.TB) (srv, cli *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "localhost"}
}

func serveTLS(t testing.TB, mode server.TLSMode) (*running, *tls.Config) {
	srv, cli := certificate(t)
	return serve(t, server.Config{Exports: []server.Export{{Name: "d", Disk: memDisk(t, 4<<20)}}, TLS: srv, TLSMode: mode}), cli
}

func (p *peer) secure(cfg *tls.Config) {
	p.t.Helper()
	p.want(nbd.OptStartTLS, nil, nbd.RepAck)
	tc := tls.Client(p.conn, cfg)
	if err := tc.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.conn = tc
}

func TestTLSModes(t *testing.T) {
	t.Parallel()
	goD := nbd.AppendGo(nil, "d", nil)
	for _, mode := range []server.TLSMode{server.TLSOn, server.TLSRequire} {
		r, cfg := serveTLS(t, mode)
		p := r.dial(t).greet(nbd.FlagFixedNewstyle)
		if mode == server.TLSRequire {
			for _, o := range []nbd.Option{nbd.OptList, nbd.OptInfo, nbd.OptGo, nbd.OptStructuredReply, nbd.OptSetMetaContext, 4242} {
				p.want(o, goD, nbd.RepErrTLSRequired)
			}
		} else {
			p.want(nbd.OptInfo, goD, nbd.RepAck)
		}
		p.want(nbd.OptStartTLS, []byte("x"), nbd.RepErrInvalid)
		p.secure(cfg)
		p.want(nbd.OptStartTLS, nil, nbd.RepErrInvalid)
		p.haggle(nbd.Structured, "d", "base:allocation")
		data := bytes.Repeat([]byte("secret"), 200000)
		if got := p.do(nbd.Request{Command: nbd.CmdWrite, Offset: 77, Length: uint64(len(data))}, data); got.errno != nbd.OK {
			t.Fatal(got.errno)
		}
		if got := p.do(nbd.Request{Command: nbd.CmdRead, Offset: 77, Length: uint64(len(data))}, nil); !bytes.Equal(got.data, data) {
			t.Error("other data came back")
		}
		time.Sleep(30 * time.Millisecond) // long enough to become idle
		p.alive()
		p.send(nbd.Request{Command: nbd.CmdDisconnect}, nil)
		p.mustClose()
	}
}

func TestTLSRequiredClosesExportName(t *testing.T) {
	t.Parallel()
	r, _ := serveTLS(t, server.TLSRequire)
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.write(nbd.AppendOption(nil, nbd.OptExportName, []byte("d")))
	var b [1]byte
	if n, err := p.conn.Read(b[:]); n != 0 || err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
	p = r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptAbort, nil, nbd.RepAck)
	p.mustClose()
}

func TestTLS12IsTheFloor(t *testing.T) {
	t.Parallel()
	r, cfg := serveTLS(t, server.TLSOn)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptStartTLS, nil, nbd.RepAck)
	if err := tls.Client(p.conn, cfg).Handshake(); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// What was negotiated in the clear is forgotten.
func TestSTARTTLSForgets(t *testing.T) {
	t.Parallel()
	r, cfg := serveTLS(t, server.TLSOn)
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	p.want(nbd.OptStructuredReply, nil, nbd.RepAck)
	p.want(nbd.OptSetMetaContext, nbd.AppendMetaQuery(nil, "d", []string{"base:allocation"}), nbd.RepAck)
	p.secure(cfg)
	if f := p.haggle(nbd.Simple, "d"); f&nbd.FlagSendDF != 0 {
		t.Error("structured replies outlived STARTTLS")
	}
	p.alive() // answered by a simple reply
}

// An attacker in the middle puts options of his own behind STARTTLS. They must
// not be answered, inside TLS or outside.
func TestSTARTTLSInjection(t *testing.T) {
	t.Parallel()
	r, cfg := serveTLS(t, server.TLSOn)
	p := r.dial(t).greet(nbd.FlagFixedNewstyle)
	b := nbd.AppendOption(nil, nbd.OptStartTLS, nil)
	b = nbd.AppendOption(b, nbd.OptStructuredReply, nil)
	p.write(nbd.AppendOption(b, nbd.OptList, nil))
	if got := p.replies(nbd.OptStartTLS); got[0].typ != nbd.RepAck {
		t.Fatal(got)
	}
	if err := tls.Client(p.conn, cfg).Handshake(); err == nil {
		t.Fatal("TLS began although plaintext was injected")
	}
	p.mustClose()
}

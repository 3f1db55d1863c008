package diskurl

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// defaultNBDPort is IANA's for NBD.
const defaultNBDPort = "10809"

// maxExport is the longest NBD string, of the protocol's "Values" section.
const maxExport = 4096

// NBDAddr is an export of an NBD server.
type NBDAddr struct {
	// Network is "tcp", "unix" or "vsock"; Host the server's HOST:PORT, the path of its socket,
	// or CID:PORT.
	Network, Host string
	// Export is the export's name, decoded.
	Export string
	// TLS: the server is reached by TLS and not without.
	TLS bool
	// TLSDir and TLSHostname are the parameters tls-certificates and tls-hostname.
	TLSDir, TLSHostname string
	// TLSUnverified: tls-verify-peer=0, the server's certificate is not checked.
	TLSUnverified bool
}

// Scheme implements Addr.
func (a NBDAddr) Scheme() string {
	scheme := SchemeNBD
	if a.TLS {
		scheme = SchemeNBDS
	}
	if a.Network != "tcp" {
		scheme += "+" + a.Network
	}
	return scheme
}

// String implements Addr.
func (a NBDAddr) String() string {
	out := url.URL{Scheme: a.Scheme(), Path: "/" + a.Export}
	params := map[string]string{"tls-certificates": a.TLSDir, "tls-hostname": a.TLSHostname}
	if a.Network == "unix" {
		params["socket"] = a.Host
	} else {
		out.Host = strings.TrimSuffix(a.Host, ":"+defaultNBDPort)
	}
	if a.TLSUnverified {
		params["tls-verify-peer"] = "0"
	}
	q := url.Values{}
	for k, v := range params {
		if v != "" {
			q.Set(k, v)
		}
	}
	out.RawQuery = encodeQuery(q)
	return out.String()
}

// Server is where the server is.
func (a NBDAddr) Server() (network, address string) { return a.Network, a.Host }

// Guard says whether TLS guards the connection.
func (a NBDAddr) Guard() Guard {
	plain := a
	plain.TLS = true
	return Guard{TLS: a.TLS, Own: a.TLSDir != "", Secured: plain.Scheme() + "://"}
}

func parseNBD(s string) (Addr, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, plainURLError(err)
	}
	switch {
	case u.Opaque != "" || !strings.HasPrefix(s[len(u.Scheme):], "://"):
		return nil, fmt.Errorf("want %s://", u.Scheme)
	case u.User != nil:
		return nil, fmt.Errorf("NBD has no user names")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return nil, fmt.Errorf("a # in an export's name is written %%23")
	}
	family, network, ok := strings.Cut(u.Scheme, "+")
	if !ok {
		network = "tcp"
	}
	a := NBDAddr{Network: network, TLS: family == SchemeNBDS}
	if a.Export, err = exportName(u.Path); err != nil {
		return nil, err
	}
	query, err := parseQuery(u.RawQuery)
	if err == nil {
		err = a.readQuery(query)
	}
	if err == nil {
		err = a.readHost(u, query)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a *NBDAddr) readQuery(query url.Values) error {
	var allowed []string
	if a.Network == "unix" {
		allowed = append(allowed, "socket")
	}
	if a.TLS {
		allowed = append(allowed, "tls-certificates", "tls-hostname", "tls-verify-peer", "tls-type", "tls-username", "tls-psk-file")
	}
	if err := oneEach(query, allowed); err != nil {
		return err
	}
	if err := a.checkTLS(query); err != nil {
		return err
	}
	a.TLSDir, a.TLSHostname = query.Get("tls-certificates"), query.Get("tls-hostname")
	return nil
}

// maxSocket is the longest path of a unix socket, unix(7), less the zero.
const maxSocket = 107

func (a *NBDAddr) readHost(u *url.URL, query url.Values) (err error) {
	switch socket := query.Get("socket"); {
	case a.Network == "vsock":
		a.Host, err = vsockHost(u)
	case a.Network == "tcp":
		a.Host, err = hostPort(u)
	case u.Host != "":
		err = fmt.Errorf("a host with a unix socket; want %s:///EXPORT?socket=PATH", u.Scheme)
	case socket == "":
		err = fmt.Errorf("no socket; want %s:///EXPORT?socket=PATH", u.Scheme)
	case len(socket) > maxSocket:
		err = fmt.Errorf("the path of the socket has %d bytes, %d are possible; use a shorter one", len(socket), maxSocket)
	default:
		a.Host = socket
	}
	return err
}

func exportName(path string) (string, error) {
	name := strings.TrimPrefix(path, "/")
	switch {
	case len(name) > maxExport:
		return "", fmt.Errorf("export name of %d bytes; NBD allows %d", len(name), maxExport)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("the export name is not UTF-8 text")
	}
	return name, nil
}

const hostBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"

func hostPort(u *url.URL) (string, error) {
	host, port := u.Hostname(), u.Port()
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = defaultNBDPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q is not 1..65535", port)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(hostBytes, r) }) {
		return "", fmt.Errorf("bad host %q", host)
	}
	return net.JoinHostPort(host, port), nil
}

// ticketNBD reads the URL of a ticket, also in the older forms nbd:unix:PATH[:exportname=NAME]
// and nbd:HOST:PORT[:exportname=NAME].
func ticketNBD(u *url.URL) (Addr, error) {
	a := NBDAddr{Network: "tcp"}
	where, export := u, u.Path
	if u.Opaque != "" {
		host, name, _ := strings.Cut(u.Opaque, ":exportname=")
		where, export = &url.URL{Host: host}, "/"+name
	}
	var err error
	if a.Export, err = exportName(export); err != nil {
		return nil, err
	}
	if path, unix := strings.CutPrefix(where.Host, "unix:"); unix && u.Opaque != "" {
		a.Network, a.Host = "unix", path
		return a, nil
	}
	if a.Host, err = hostPort(where); err != nil {
		return nil, err
	}
	return a, nil
}

// parseQuery splits the query of an NBD URI. A + is a plus there, as RFC 3986 has it:
// the blank that it means to web forms is %20.
func parseQuery(raw string) (url.Values, error) {
	return url.ParseQuery(strings.ReplaceAll(raw, "+", "%2B"))
}

// encodeQuery is the other way round. A query may hold slashes, and people read them.
func encodeQuery(q url.Values) string {
	return strings.NewReplacer("%2F", "/", "+", "%20").Replace(q.Encode())
}

// checkTLS refuses what the parameters ask for and Go's TLS, which is X.509 alone, has not.
func (a *NBDAddr) checkTLS(q url.Values) error {
	switch kind := q.Get("tls-type"); {
	case kind == "psk" || kind == "anon":
		return fmt.Errorf("tls-type=%s is not supported, only x509: Go's TLS has no pre-shared keys and no anonymous mode", kind)
	case kind != "" && kind != "x509":
		return fmt.Errorf("tls-type=%s is not one of x509, psk, anon", kind)
	case q.Has("tls-username") || q.Has("tls-psk-file"):
		return fmt.Errorf("tls-username and tls-psk-file are for pre-shared keys, which Go's TLS has not; use certificates")
	}
	switch verify := q.Get("tls-verify-peer"); verify {
	case "0":
		a.TLSUnverified = true
	case "", "1":
	default:
		return fmt.Errorf("tls-verify-peer=%s is neither 0 nor 1", verify)
	}
	return nil
}

// oneEach checks that each parameter is allowed and has one value.
func oneEach(q url.Values, allowed []string) error {
	for key, values := range q {
		if !slices.Contains(allowed, key) {
			return fmt.Errorf("unknown parameter %q%s", key, suggest(key, allowed))
		}
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("parameter %s wants one value", key)
		}
	}
	return nil
}

// vsockHost is the CID:PORT of a vsock URL; by default that of the host, as a guest
// sees it, and NBD's port.
func vsockHost(u *url.URL) (string, error) {
	cid, port := u.Hostname(), u.Port()
	if cid == "" {
		cid = "2"
	}
	if port == "" {
		port = defaultNBDPort
	}
	for _, text := range []string{cid, port} {
		if n, err := strconv.ParseUint(text, 10, 32); err != nil || n == math.MaxUint32 {
			return "", fmt.Errorf("%q is no number of a vsock address, CID:PORT", text)
		}
	}
	return net.JoinHostPort(cid, port), nil
}

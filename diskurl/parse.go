package diskurl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The schemes of disk URLs.
const (
	SchemeFile      = "file"
	SchemeRaw       = "raw"
	SchemeQcow2     = "qcow2"
	SchemeLUKS      = "luks"
	SchemeNBD       = "nbd"
	SchemeNBDS      = "nbds"
	SchemeNBDUnix   = "nbd+unix"
	SchemeNBDSUnix  = "nbds+unix"
	SchemeNBDVsock  = "nbd+vsock"
	SchemeNBDSVsock = "nbds+vsock"
	SchemeHTTP      = "http"
	SchemeHTTPS     = "https"
	SchemeMem       = "mem"
	SchemeNull      = "null"
	SchemePattern   = "pattern"
	SchemeVhostUser = "vhost-user"
)

// defaultNBDPort is IANA's for NBD.
const defaultNBDPort = "10809"

// maxExport is the longest NBD string, of the protocol's "Values" section.
const maxExport = 4096

var schemes = []string{
	SchemeFile, SchemeRaw, SchemeQcow2, SchemeLUKS, SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix,
	SchemeNBDVsock, SchemeNBDSVsock, SchemeHTTP, SchemeHTTPS, SchemeMem, SchemeNull, SchemePattern, SchemeVhostUser,
}

// URL is a disk URL, parsed. Two URLs of one meaning are equal.
type URL struct {
	Scheme string
	// Path of a file or block device, or of the unix socket.
	Path string
	// Host is "host:port" of a network scheme.
	Host string
	// Export is the NBD export's name, decoded.
	Export string
	// Size in bytes of mem, null and pattern.
	Size int64
	// Raw is the whole URL of http and https.
	Raw string
	// TLSDir and TLSHostname are the tls-certificates and tls-hostname
	// parameters of an nbds URL.
	TLSDir, TLSHostname string
	// TLSUnverified: tls-verify-peer=0, the server's certificate is not checked.
	TLSUnverified bool
}

// Parse parses a disk URL; text without a scheme is a file's path.
func Parse(s string) (URL, error) {
	u, err := parse(s)
	if err != nil {
		return URL{}, &SyntaxError{What: "disk URL", Input: s, Err: err}
	}
	return u, nil
}

// SyntaxError is a disk URL or a filter that cannot be understood: the mistake
// of whoever wrote it, not of the storage.
type SyntaxError struct {
	What, Input string
	Err         error
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s %q: %v", e.What, e.Input, e.Err) }

// Unwrap returns the cause.
func (e *SyntaxError) Unwrap() error { return e.Err }

func parse(s string) (URL, error) {
	if strings.ContainsRune(s, 0) {
		return URL{}, fmt.Errorf("contains a NUL byte")
	}
	scheme, rest, ok := cutScheme(s)
	if !ok {
		scheme, rest = SchemeFile, s
	}
	if host, ok := strings.CutPrefix(rest, "//"); ok && scheme == SchemeFile && host != "" && host[0] != '/' && rest != s {
		return URL{}, fmt.Errorf("a file URL has no host; want file:/path")
	}
	switch scheme {
	case SchemeFile, SchemeRaw, SchemeQcow2, SchemeLUKS, SchemeVhostUser:
		return parsePath(scheme, rest)
	case SchemeMem, SchemeNull, SchemePattern:
		size, err := ParseSize(rest)
		if err != nil {
			return URL{}, fmt.Errorf("want %s:SIZE: %w", scheme, err)
		}
		return URL{Scheme: scheme, Size: size}, nil
	case SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix, SchemeNBDVsock, SchemeNBDSVsock:
		return parseNBD(s)
	case SchemeHTTP, SchemeHTTPS:
		return parseHTTP(s)
	}
	return URL{}, fmt.Errorf("unknown scheme %q%s; write ./%s if it is a file", scheme, suggest(scheme, schemes), s)
}

// cutScheme splits off what RFC 3986 calls a scheme.
func cutScheme(s string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(s, ":")
	if !ok || scheme == "" {
		return "", s, false
	}
	for i, c := range []byte(strings.ToLower(scheme)) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return "", s, false
		}
	}
	return strings.ToLower(scheme), rest, true
}

func parsePath(scheme, path string) (URL, error) {
	if strings.HasPrefix(path, "//") { // an empty authority, or slashes too many
		path = "/" + strings.TrimLeft(path, "/")
	}
	if path == "" {
		return URL{}, fmt.Errorf("the path is empty")
	}
	return URL{Scheme: scheme, Path: path}, nil
}

func parseNBD(s string) (URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return URL{}, plainURLError(err)
	}
	out := URL{Scheme: u.Scheme}
	secure := u.Scheme == SchemeNBDS || u.Scheme == SchemeNBDSUnix || u.Scheme == SchemeNBDSVsock
	switch {
	case u.Opaque != "" || !strings.HasPrefix(s[len(u.Scheme):], "://"):
		return URL{}, fmt.Errorf("want %s://", u.Scheme)
	case u.User != nil:
		return URL{}, fmt.Errorf("NBD has no user names")
	case u.Fragment != "" || strings.HasSuffix(s, "#"):
		return URL{}, fmt.Errorf("a # in an export's name is written %%23")
	}
	if out.Export, err = exportName(u.Path); err != nil {
		return URL{}, err
	}
	query, err := parseQuery(u.RawQuery)
	if err != nil {
		return URL{}, err
	}
	allowed := []string{}
	if u.Scheme == SchemeNBDUnix || u.Scheme == SchemeNBDSUnix {
		allowed = append(allowed, "socket")
	}
	if secure {
		allowed = append(allowed, "tls-certificates", "tls-hostname", "tls-verify-peer", "tls-type", "tls-username", "tls-psk-file")
	}
	if err := oneEach(query, allowed); err != nil {
		return URL{}, err
	}
	if err := out.checkTLS(query); err != nil {
		return URL{}, err
	}
	out.TLSDir, out.TLSHostname = query.Get("tls-certificates"), query.Get("tls-hostname")
	if u.Scheme == SchemeNBDVsock || u.Scheme == SchemeNBDSVsock {
		out.Host, err = vsockHost(u)
		return out, err
	}
	if !slices.Contains(allowed, "socket") {
		out.Host, err = hostPort(u)
		return out, err
	}
	out.Path = query.Get("socket")
	switch {
	case u.Host != "":
		return URL{}, fmt.Errorf("a host with a unix socket; want %s:///EXPORT?socket=PATH", u.Scheme)
	case out.Path == "":
		return URL{}, fmt.Errorf("no socket; want %s:///EXPORT?socket=PATH", u.Scheme)
	}
	return out, nil
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

func parseHTTP(s string) (URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return URL{}, plainURLError(err)
	}
	if u.Host == "" || u.Opaque != "" {
		return URL{}, fmt.Errorf("want %s://host/path", u.Scheme)
	}
	return URL{Scheme: u.Scheme, Raw: u.String()}, nil
}

// plainURLError drops the URL that net/url repeats in its errors.
func plainURLError(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// String returns the URL in its shortest form that Parse reads back.
func (u URL) String() string {
	switch u.Scheme {
	case SchemeFile:
		if _, _, ok := cutScheme(u.Path); ok {
			return "file:" + u.Path
		}
		return u.Path
	case SchemeMem, SchemeNull, SchemePattern:
		return u.Scheme + ":" + FormatSize(u.Size)
	case SchemeNBD, SchemeNBDS, SchemeNBDUnix, SchemeNBDSUnix, SchemeNBDVsock, SchemeNBDSVsock:
		return u.nbdString()
	case SchemeHTTP, SchemeHTTPS:
		return u.Raw
	}
	return u.Scheme + ":" + u.Path
}

func (u URL) nbdString() string {
	out := url.URL{Scheme: u.Scheme, Host: strings.TrimSuffix(u.Host, ":"+defaultNBDPort), Path: "/" + u.Export}
	q := url.Values{}
	for k, v := range map[string]string{"socket": u.Path, "tls-certificates": u.TLSDir, "tls-hostname": u.TLSHostname} {
		// A unix scheme's Path is the socket; network schemes have none.
		if v != "" {
			q.Set(k, v)
		}
	}
	if u.TLSUnverified {
		q.Set("tls-verify-peer", "0")
	}
	out.RawQuery = encodeQuery(q)
	return out.String()
}

// Local reports whether the disk is a file or block device of this host.
func (u URL) Local() bool {
	switch u.Scheme {
	case SchemeFile, SchemeRaw, SchemeQcow2, SchemeLUKS:
		return true
	}
	return false
}

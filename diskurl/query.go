package diskurl

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

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
func (u *URL) checkTLS(q url.Values) error {
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
		u.TLSUnverified = true
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

// vsockHost is the cid:port of a vsock URL; by default that of the host, as a guest
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

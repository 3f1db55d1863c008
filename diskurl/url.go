package diskurl

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Addr is where a disk's bytes are, as a protocol names it: FileAddr, NBDAddr, SizeAddr,
// HTTPAddr. Addresses of one meaning are equal. What else is known of one, it says by the
// methods LocalPath, Redacted, Server and Guard, each of them optional.
type Addr interface {
	// Scheme is the scheme of the address's URL.
	Scheme() string
	// String is the URL in its shortest form that Parse reads back.
	String() string
}

// What an address may say besides.
type (
	// localAddr is a file or block device of this host.
	localAddr interface{ LocalPath() string }
	// secretAddr holds a part that is nobody's business.
	secretAddr interface{ Redacted() string }
	// serverAddr is reached, and after a loss reached again, by a network.
	serverAddr interface {
		Server() (network, address string)
	}
	// guardedAddr may be reached by TLS, see Guard.
	guardedAddr interface{ Guard() Guard }
)

// URL is a disk URL, parsed: formats over the address of a protocol. Two URLs of one
// meaning are equal.
type URL struct {
	// Formats are those that the URL names, outermost first, with colons between them.
	Formats string
	Addr    Addr
}

// maxFormats bounds the formats of one URL: nobody needs three.
const maxFormats = 8

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
	formats, rest, err := cutFormats(s)
	if err != nil {
		return URL{}, err
	}
	addr, err := parseAddr(rest)
	if err != nil {
		return URL{}, err
	}
	return URL{Formats: strings.Join(formats, ":"), Addr: addr}, nil
}

// cutFormats splits off the formats that s begins with.
func cutFormats(s string) (formats []string, rest string, err error) {
	for {
		name, rest, ok := cutScheme(s)
		if !ok || kindOf(name) != kindFormat {
			return formats, s, nil
		}
		if formats, s = append(formats, name), rest; len(formats) > maxFormats {
			return nil, "", fmt.Errorf("more than %d formats", maxFormats)
		}
	}
}

func parseAddr(s string) (Addr, error) {
	scheme, _, ok := cutScheme(s)
	if !ok {
		return parsePath(s)
	}
	if p, ok := protocols[scheme]; ok {
		return p.parse(s)
	}
	if kindOf(scheme) == kindProtocol {
		_, rest, _ := cutScheme(s)
		return otherAddr{scheme, rest}, nil
	}
	return nil, fmt.Errorf("unknown scheme %q%s; write ./%s if it is a file", scheme, suggest(scheme, allSchemes()), s)
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

// otherAddr is the address of a protocol that this build does not have.
type otherAddr struct{ scheme, rest string }

// Scheme implements Addr.
func (a otherAddr) Scheme() string { return a.scheme }

// String implements Addr.
func (a otherAddr) String() string { return a.scheme + ":" + a.rest }

// String returns the URL in its shortest form that Parse reads back. It may hold a
// secret; see Redacted.
func (u URL) String() string { return u.text(func(a Addr) string { return a.String() }) }

// Redacted is String for messages and logs: without the part that is a secret, such as the
// ticket of a transfer.
func (u URL) Redacted() string {
	return u.text(func(a Addr) string {
		if s, ok := a.(secretAddr); ok {
			return s.Redacted()
		}
		return a.String()
	})
}

func (u URL) text(write func(Addr) string) string {
	switch {
	case u.Addr == nil:
		return ""
	case u.Formats == "":
		return write(u.Addr)
	}
	return u.Formats + ":" + write(u.Addr)
}

// Scheme is the protocol's scheme; the formats are not part of it.
func (u URL) Scheme() string {
	if u.Addr == nil {
		return ""
	}
	return u.Addr.Scheme()
}

// Names are the rows that it takes to open u: its formats, outermost first, and its scheme.
func (u URL) Names() []string {
	if u.Formats == "" {
		return []string{u.Scheme()}
	}
	return append(strings.Split(u.Formats, ":"), u.Scheme())
}

// Local reports whether the bytes are in a file or block device of this host.
func (u URL) Local() bool {
	_, ok := u.Addr.(localAddr)
	return ok
}

// Path is the path of that file or device; "" for what is not local.
func (u URL) Path() string {
	if l, ok := u.Addr.(localAddr); ok {
		return l.LocalPath()
	}
	return ""
}

// Server is where the server is that holds the bytes: network "unix", "tcp" or "vsock"
// with its address; network "any" if a server decides where that is; "" if there is none.
func (u URL) Server() (network, address string) {
	if s, ok := u.Addr.(serverAddr); ok {
		return s.Server()
	}
	return "", ""
}

// File is the URL of a local file.
func File(path string) URL { return URL{Addr: FileAddr{path}} }

// At is the URL with the path of another local file, of the same formats.
func (u URL) At(path string) URL {
	u.Addr = FileAddr{path}
	return u
}

// As is the URL of what u names, taken as a format.
func (u URL) As(format string) URL {
	if u.Formats != "" {
		format += ":" + u.Formats
	}
	u.Formats = format
	return u
}

// formatList are the formats of u, innermost first, -f (want) among them. An error is
// a mistake of whoever wrote it; whether a format is in this build is not looked at.
func (u URL) formatList(want, flag string) ([]string, error) {
	var list []string
	if u.Formats != "" {
		list = strings.Split(u.Formats, ":")
		slices.Reverse(list)
	}
	switch known := allFormats(); {
	case want == "":
		return list, nil
	case !slices.Contains(known, want):
		return nil, &SyntaxError{What: "format", Input: want, Err: fmt.Errorf("%s wants one of %s%s", flag, strings.Join(known, ", "), suggest(want, known))}
	case list == nil:
		return []string{want}, nil
	case list[len(list)-1] != want:
		return nil, &SyntaxError{What: "disk URL", Input: u.Redacted(), Err: fmt.Errorf("contradicts %s %s", flag, want)}
	}
	return list, nil
}

// Same reports whether two URLs name the same local file, by device and inode.
func Same(a, b URL) bool {
	if !a.Local() || !b.Local() {
		return false
	}
	fa, errA := os.Stat(a.Path())
	fb, errB := os.Stat(b.Path())
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

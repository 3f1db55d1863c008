package nbd

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

var be = binary.BigEndian

// Sizes of the fixed messages of the handshake, in bytes.
const (
	GreetingSize          = 18
	ClientFlagsSize       = 4
	OptionHeaderSize      = 16
	OptionReplyHeaderSize = 20
)

// AppendGreeting appends the server's first message.
func AppendGreeting(b []byte, f HandshakeFlags) []byte {
	b = be.AppendUint64(b, MagicGreeting)
	b = be.AppendUint64(b, MagicOption)
	return be.AppendUint16(b, uint16(f))
}

// DecodeGreeting decodes the server's first GreetingSize bytes. An oldstyle
// server is refused.
func DecodeGreeting(b []byte) (HandshakeFlags, error) {
	if len(b) < GreetingSize {
		return 0, ErrShort
	}
	if m := be.Uint64(b); m != MagicGreeting {
		return 0, malformed("greeting magic %#x, not an NBD server", m)
	}
	switch m := be.Uint64(b[8:]); m {
	case MagicOption:
		return HandshakeFlags(be.Uint16(b[16:])), nil
	case MagicOldstyle:
		return 0, malformed("oldstyle NBD server; only newstyle negotiation is spoken")
	default:
		return 0, malformed("option magic %#x in the greeting", m)
	}
}

// AppendClientFlags appends the client's answer to the greeting.
func AppendClientFlags(b []byte, f HandshakeFlags) []byte { return be.AppendUint32(b, uint32(f)) }

// DecodeClientFlags decodes the client's answer. Unknown bits are an error, as
// section "Client flags" requires.
func DecodeClientFlags(b []byte) (HandshakeFlags, error) {
	if len(b) < ClientFlagsSize {
		return 0, ErrShort
	}
	f := be.Uint32(b)
	if f&^uint32(FlagFixedNewstyle|FlagNoZeroes) != 0 {
		return 0, malformed("unknown client flags %#x", f)
	}
	return HandshakeFlags(f), nil
}

// OptionHeader precedes the data of an option.
type OptionHeader struct {
	Option Option
	Len    uint32 // bytes of data that follow
}

// AppendOption appends an option with its data.
func AppendOption(b []byte, o Option, data []byte) []byte {
	b = be.AppendUint64(b, MagicOption)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// DecodeOptionHeader decodes OptionHeaderSize bytes.
func DecodeOptionHeader(b []byte) (OptionHeader, error) {
	if len(b) < OptionHeaderSize {
		return OptionHeader{}, ErrShort
	}
	if m := be.Uint64(b); m != MagicOption {
		return OptionHeader{}, malformed("option magic %#x", m)
	}
	return OptionHeader{Option(be.Uint32(b[8:])), be.Uint32(b[12:])}, nil
}

// OptionReplyHeader precedes the data of an option reply.
type OptionReplyHeader struct {
	Option Option
	Type   OptionReplyType
	Len    uint32 // bytes of data that follow
}

// AppendOptionReply appends the answer to option o with its data, which for an
// error is a message for people.
func AppendOptionReply(b []byte, o Option, t OptionReplyType, data []byte) []byte {
	b = be.AppendUint64(b, MagicOptionReply)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(t))
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// DecodeOptionReplyHeader decodes OptionReplyHeaderSize bytes.
func DecodeOptionReplyHeader(b []byte) (OptionReplyHeader, error) {
	if len(b) < OptionReplyHeaderSize {
		return OptionReplyHeader{}, ErrShort
	}
	if m := be.Uint64(b); m != MagicOptionReply {
		return OptionReplyHeader{}, malformed("option reply magic %#x", m)
	}
	return OptionReplyHeader{Option(be.Uint32(b[8:])), OptionReplyType(be.Uint32(b[12:])), be.Uint32(b[16:])}, nil
}

// exportNamePad is the run of zeros after the answer to EXPORT_NAME.
const exportNamePad = 124

// ExportNameReplySize is the length of the answer to EXPORT_NAME.
func ExportNameReplySize(noZeroes bool) int {
	if noZeroes {
		return 10
	}
	return 10 + exportNamePad
}

// AppendExportNameReply appends the answer to EXPORT_NAME, the only option
// without a reply header.
func AppendExportNameReply(b []byte, size uint64, f TransmissionFlags, noZeroes bool) []byte {
	b = be.AppendUint64(b, size)
	b = be.AppendUint16(b, uint16(f))
	if !noZeroes {
		b = append(b, make([]byte, exportNamePad)...)
	}
	return b
}

// DecodeExportNameReply decodes the first 10 bytes of the answer to EXPORT_NAME.
func DecodeExportNameReply(b []byte) (size uint64, f TransmissionFlags, err error) {
	if len(b) < 10 {
		return 0, 0, ErrShort
	}
	return be.Uint64(b), TransmissionFlags(be.Uint16(b[8:])), nil
}

// AppendGo appends the data of INFO or GO: the export and what the client asks
// to be told about it.
func AppendGo(b []byte, export string, infos []InfoType) []byte {
	b = appendString(b, export)
	b = be.AppendUint16(b, uint16(len(infos)))
	for _, t := range infos {
		b = be.AppendUint16(b, uint16(t))
	}
	return b
}

// DecodeGo decodes the data of INFO or GO.
func DecodeGo(b []byte) (export string, infos []InfoType, err error) {
	if export, b, err = takeString(b, "export name"); err != nil {
		return "", nil, err
	}
	if len(b) < 2 {
		return "", nil, malformed("no room for the count of information requests")
	}
	n := int(be.Uint16(b))
	if b = b[2:]; len(b) != 2*n {
		return "", nil, malformed("%d information requests in %d bytes", n, len(b))
	}
	for ; len(b) > 0; b = b[2:] {
		infos = append(infos, InfoType(be.Uint16(b)))
	}
	return export, infos, nil
}

// Info is the data of one INFO reply; which fields count depends on Type.
type Info struct {
	Type  InfoType
	Size  uint64            // InfoExport: bytes
	Flags TransmissionFlags // InfoExport
	Text  string            // InfoName, InfoDescription
	// InfoBlockSize, bytes.
	Min, Preferred, Max uint32
}

// Append appends the data of an INFO reply.
func (i Info) Append(b []byte) []byte {
	b = be.AppendUint16(b, uint16(i.Type))
	switch i.Type {
	case InfoExport:
		b = be.AppendUint64(b, i.Size)
		b = be.AppendUint16(b, uint16(i.Flags))
	case InfoName, InfoDescription:
		b = append(b, i.Text...)
	case InfoBlockSize:
		b = be.AppendUint32(b, i.Min)
		b = be.AppendUint32(b, i.Preferred)
		b = be.AppendUint32(b, i.Max)
	}
	return b
}

// DecodeInfo decodes the data of an INFO reply. Unknown types decode to their
// Type alone.
func DecodeInfo(b []byte) (Info, error) {
	if len(b) < 2 {
		return Info{}, malformed("INFO reply of %d bytes", len(b))
	}
	i := Info{Type: InfoType(be.Uint16(b))}
	b = b[2:]
	switch i.Type {
	case InfoExport:
		if len(b) != 10 {
			return Info{}, malformed("export information of %d bytes", len(b))
		}
		i.Size, i.Flags = be.Uint64(b), TransmissionFlags(be.Uint16(b[8:]))
	case InfoName, InfoDescription:
		if err := CheckString(b, "export "+strings.ToLower(i.Type.String())); err != nil {
			return Info{}, err
		}
		i.Text = string(b)
	case InfoBlockSize:
		if len(b) != 12 {
			return Info{}, malformed("block size information of %d bytes", len(b))
		}
		i.Min, i.Preferred, i.Max = be.Uint32(b), be.Uint32(b[4:]), be.Uint32(b[8:])
		return i, i.checkBlockSize()
	}
	return i, nil
}

// checkBlockSize applies section "Block size constraints".
func (i Info) checkBlockSize() error {
	pow2 := func(v uint32) bool { return v != 0 && v&(v-1) == 0 }
	if !pow2(i.Min) || i.Min > 65536 || !pow2(i.Preferred) || i.Preferred < i.Min ||
		i.Max < i.Min || (i.Max != 1<<32-1 && i.Max%i.Min != 0) {
		return malformed("block sizes minimum %d, preferred %d, maximum %d", i.Min, i.Preferred, i.Max)
	}
	return nil
}

// AppendServer appends the data of a SERVER reply (to LIST): an export's name
// and a description for people.
func AppendServer(b []byte, export, description string) []byte {
	b = appendString(b, export)
	return append(b, description...)
}

// DecodeServer decodes the data of a SERVER reply.
func DecodeServer(b []byte) (export, description string, err error) {
	if export, b, err = takeString(b, "export name"); err != nil {
		return "", "", err
	}
	if err := CheckString(b, "export description"); err != nil {
		return "", "", err
	}
	return export, string(b), nil
}

// AppendMetaQuery appends the data of LIST_META_CONTEXT or SET_META_CONTEXT.
func AppendMetaQuery(b []byte, export string, queries []string) []byte {
	b = appendString(b, export)
	b = be.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = appendString(b, q)
	}
	return b
}

// DecodeMetaQuery decodes the data of LIST_META_CONTEXT or SET_META_CONTEXT.
// The number of queries is bounded by the length of b alone.
func DecodeMetaQuery(b []byte) (export string, queries []string, err error) {
	if export, b, err = takeString(b, "export name"); err != nil {
		return "", nil, err
	}
	if len(b) < 4 {
		return "", nil, malformed("no room for the count of queries")
	}
	n := be.Uint32(b)
	if b = b[4:]; uint64(n)*4 > uint64(len(b)) {
		return "", nil, malformed("%d queries in %d bytes", n, len(b))
	}
	queries = make([]string, 0, n)
	for range n {
		var q string
		if q, b, err = takeString(b, "context query"); err != nil {
			return "", nil, err
		}
		queries = append(queries, q)
	}
	if len(b) != 0 {
		return "", nil, malformed("%d bytes after the last query", len(b))
	}
	return export, queries, nil
}

// AppendMetaContext appends the data of a META_CONTEXT reply. The id means
// nothing in the answer to LIST_META_CONTEXT.
func AppendMetaContext(b []byte, id uint32, name string) []byte {
	b = be.AppendUint32(b, id)
	return append(b, name...)
}

// DecodeMetaContext decodes the data of a META_CONTEXT reply.
func DecodeMetaContext(b []byte) (id uint32, name string, err error) {
	if len(b) < 4 {
		return 0, "", malformed("context reply of %d bytes", len(b))
	}
	if err := CheckString(b[4:], "context name"); err != nil {
		return 0, "", err
	}
	return be.Uint32(b), string(b[4:]), nil
}

func appendString(b []byte, s string) []byte {
	b = be.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// takeString cuts a string with its 32-bit length off b.
func takeString(b []byte, what string) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, malformed("no room for the length of the %s", what)
	}
	n := be.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return "", nil, malformed("%s of %d bytes in %d", what, n, len(b))
	}
	if err := CheckString(b[:n], what); err != nil {
		return "", nil, err
	}
	return string(b[:n]), b[n:], nil
}

// CheckString applies section "Terminology": UTF-8, no NUL, 4096 bytes.
func CheckString(b []byte, what string) error {
	if len(b) > MaxString {
		return malformed("%s of %d bytes, more than %d", what, len(b), MaxString)
	}
	if !utf8.Valid(b) {
		return malformed("%s is not UTF-8", what)
	}
	for _, c := range b {
		if c == 0 {
			return malformed("%s with a NUL", what)
		}
	}
	return nil
}

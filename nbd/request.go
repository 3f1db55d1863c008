package nbd

// Sizes of a request header, in bytes.
const (
	RequestSize         = 28
	ExtendedRequestSize = 32
)

// RequestHeaderSize returns the size of a request header in mode m.
func (m Mode) RequestHeaderSize() int {
	if m == Extended {
		return ExtendedRequestSize
	}
	return RequestSize
}

// Request is a request header. Length is the effect's length in bytes, or the
// payload's where CmdFlagPayloadLen is set (section "Extended request"); the
// compact form carries 32 bits of it.
type Request struct {
	Flags   CommandFlags
	Command Command
	Cookie  uint64
	Offset  uint64
	Length  uint64
}

// Append appends the header as mode m has it. A write's data follows it.
func (r *Request) Append(b []byte, m Mode) []byte {
	magic := MagicRequest
	if m == Extended {
		magic = MagicExtendedRequest
	}
	b = be.AppendUint32(b, magic)
	b = be.AppendUint16(b, uint16(r.Flags))
	b = be.AppendUint16(b, uint16(r.Command))
	b = be.AppendUint64(b, r.Cookie)
	b = be.AppendUint64(b, r.Offset)
	if m == Extended {
		return be.AppendUint64(b, r.Length)
	}
	return be.AppendUint32(b, uint32(r.Length))
}

// Decode decodes a header of mode m from the start of b and returns its size;
// ErrShort when b ends before it does.
func (r *Request) Decode(b []byte, m Mode) (int, error) {
	size, magic := RequestSize, MagicRequest
	if m == Extended {
		size, magic = ExtendedRequestSize, MagicExtendedRequest
	}
	if len(b) >= 4 && be.Uint32(b) != magic {
		return 0, malformed("request magic %#x where %#x belongs", be.Uint32(b), magic)
	}
	if len(b) < size {
		return 0, ErrShort
	}
	r.Flags = CommandFlags(be.Uint16(b[4:]))
	r.Command = Command(be.Uint16(b[6:]))
	r.Cookie = be.Uint64(b[8:])
	r.Offset = be.Uint64(b[16:])
	if m == Extended {
		r.Length = be.Uint64(b[24:])
	} else {
		r.Length = uint64(be.Uint32(b[24:]))
	}
	return size, nil
}

// AppendStatusPayload appends the payload of a BLOCK_STATUS request with
// CmdFlagPayloadLen: the effect's length in bytes and the ids of the contexts
// that the client wants of those it negotiated.
func AppendStatusPayload(b []byte, length uint64, ids []uint32) []byte {
	b = be.AppendUint64(b, length)
	for _, id := range ids {
		b = be.AppendUint32(b, id)
	}
	return b
}

// DecodeStatusPayload decodes the whole payload of such a request, appending
// the ids to dst.
func DecodeStatusPayload(b []byte, dst []uint32) (length uint64, ids []uint32, err error) {
	if len(b) < 8 || len(b)%4 != 0 {
		return 0, nil, malformed("block status payload of %d bytes", len(b))
	}
	length = be.Uint64(b)
	for b = b[8:]; len(b) > 0; b = b[4:] {
		dst = append(dst, be.Uint32(b))
	}
	return length, dst, nil
}

package nbd

// Sizes of reply headers, in bytes.
const (
	SimpleReplySize     = 16
	StructuredReplySize = 20
	ExtendedReplySize   = 32
)

// Reply is a reply header: a simple reply, or one chunk of a structured or
// extended one. Length bytes of payload follow it, except that after a simple
// reply without an error to a READ come the bytes asked for, which the header
// does not tell.
type Reply struct {
	Simple bool
	Error  Errno // simple replies; an error chunk has it in its payload
	Flags  ChunkFlags
	Type   ChunkType
	Cookie uint64
	Offset uint64 // extended replies: the request's offset
	Length uint64 // bytes of payload
}

// Done reports whether this is the last of a reply.
func (r *Reply) Done() bool { return r.Simple || r.Flags&ChunkDone != 0 }

// Append appends the header as mode m has it; a simple reply is the same in
// modes Simple and Structured and does not exist in Extended.
func (r *Reply) Append(b []byte, m Mode) []byte {
	if r.Simple {
		return AppendSimpleReply(b, r.Cookie, r.Error)
	}
	magic := MagicStructuredReply
	if m == Extended {
		magic = MagicExtendedReply
	}
	b = be.AppendUint32(b, magic)
	b = be.AppendUint16(b, uint16(r.Flags))
	b = be.AppendUint16(b, uint16(r.Type))
	b = be.AppendUint64(b, r.Cookie)
	if m == Extended {
		b = be.AppendUint64(b, r.Offset)
		return be.AppendUint64(b, r.Length)
	}
	return be.AppendUint32(b, uint32(r.Length))
}

// Decode decodes a reply header that mode m allows from the start of b and
// returns its size; ErrShort when b ends before it does.
func (r *Reply) Decode(b []byte, m Mode) (int, error) {
	if len(b) < 4 {
		return 0, ErrShort
	}
	magic := be.Uint32(b)
	switch {
	case magic == MagicSimpleReply && m != Extended:
		return r.decodeSimple(b)
	case magic == MagicStructuredReply && m == Structured:
		return r.decodeStructured(b)
	case magic == MagicExtendedReply && m == Extended:
		return r.decodeExtended(b)
	}
	return 0, malformed("reply magic %#x in mode %v", magic, m)
}

func (r *Reply) decodeSimple(b []byte) (int, error) {
	if len(b) < SimpleReplySize {
		return 0, ErrShort
	}
	*r = Reply{Simple: true, Error: Errno(be.Uint32(b[4:])), Cookie: be.Uint64(b[8:])}
	return SimpleReplySize, nil
}

func (r *Reply) decodeStructured(b []byte) (int, error) {
	if len(b) < StructuredReplySize {
		return 0, ErrShort
	}
	*r = Reply{
		Flags: ChunkFlags(be.Uint16(b[4:])), Type: ChunkType(be.Uint16(b[6:])),
		Cookie: be.Uint64(b[8:]), Length: uint64(be.Uint32(b[16:])),
	}
	return StructuredReplySize, nil
}

func (r *Reply) decodeExtended(b []byte) (int, error) {
	if len(b) < ExtendedReplySize {
		return 0, ErrShort
	}
	*r = Reply{
		Flags: ChunkFlags(be.Uint16(b[4:])), Type: ChunkType(be.Uint16(b[6:])),
		Cookie: be.Uint64(b[8:]), Offset: be.Uint64(b[16:]), Length: be.Uint64(b[24:]),
	}
	return ExtendedReplySize, nil
}

// AppendSimpleReply appends a simple reply; the data of a READ follows it.
func AppendSimpleReply(b []byte, cookie uint64, e Errno) []byte {
	b = be.AppendUint32(b, MagicSimpleReply)
	b = be.AppendUint32(b, uint32(e))
	return be.AppendUint64(b, cookie)
}

// ReplyTo names the request that a chunk answers.
type ReplyTo struct {
	Mode   Mode   // Structured or Extended
	Cookie uint64 // the request's
	Offset uint64 // the request's; extended replies repeat it
}

// chunk appends a chunk's header.
func (to ReplyTo) chunk(b []byte, f ChunkFlags, t ChunkType, length int) []byte {
	r := Reply{Flags: f, Type: t, Cookie: to.Cookie, Offset: to.Offset, Length: uint64(length)}
	return r.Append(b, to.Mode)
}

// AppendNone appends an empty chunk, which ends a reply: always with ChunkDone.
func (to ReplyTo) AppendNone(b []byte) []byte { return to.chunk(b, ChunkDone, ChunkNone, 0) }

// DataHeaderSize is the size of a data chunk up to its data.
func (m Mode) DataHeaderSize() int {
	switch m {
	case Simple:
		return SimpleReplySize
	case Structured:
		return StructuredReplySize + 8
	}
	return ExtendedReplySize + 8
}

// AppendDataHeader appends a data chunk up to its data, n bytes from offset off
// of the export, which must follow.
func (to ReplyTo) AppendDataHeader(b []byte, f ChunkFlags, off uint64, n int) []byte {
	b = to.chunk(b, f, ChunkOffsetData, 8+n)
	return be.AppendUint64(b, off)
}

// AppendHole appends a chunk that says that n bytes from offset off read as zeros.
func (to ReplyTo) AppendHole(b []byte, f ChunkFlags, off uint64, n uint32) []byte {
	b = to.chunk(b, f, ChunkOffsetHole, 12)
	b = be.AppendUint64(b, off)
	return be.AppendUint32(b, n)
}

// AppendError appends an error chunk; a message longer than MaxString is cut.
func (to ReplyTo) AppendError(b []byte, f ChunkFlags, e Errno, message string) []byte {
	message = message[:min(len(message), MaxString)]
	b = to.chunk(b, f, ChunkError, 6+len(message))
	b = be.AppendUint32(b, uint32(e))
	b = be.AppendUint16(b, uint16(len(message)))
	return append(b, message...)
}

// AppendErrorOffset appends an error chunk that tells the offset of the export
// at which a read failed.
func (to ReplyTo) AppendErrorOffset(b []byte, f ChunkFlags, e Errno, message string, off uint64) []byte {
	message = message[:min(len(message), MaxString)]
	b = to.chunk(b, f, ChunkErrorOffset, 14+len(message))
	b = be.AppendUint32(b, uint32(e))
	b = be.AppendUint16(b, uint16(len(message)))
	b = append(b, message...)
	return be.AppendUint64(b, off)
}

// Status is one extent of a block status reply. Structured replies carry 32
// bits of each field.
type Status struct {
	Length uint64 // bytes
	Flags  uint64 // meaning by context
}

// AppendBlockStatus appends the status of one context: a BLOCK_STATUS chunk in
// mode Structured, a BLOCK_STATUS_EXT chunk in mode Extended.
func (to ReplyTo) AppendBlockStatus(b []byte, f ChunkFlags, context uint32, extents []Status) []byte {
	if to.Mode == Extended {
		b = to.chunk(b, f, ChunkBlockStatusExt, 8+16*len(extents))
		b = be.AppendUint32(b, context)
		b = be.AppendUint32(b, uint32(len(extents)))
		for _, e := range extents {
			b = be.AppendUint64(b, e.Length)
			b = be.AppendUint64(b, e.Flags)
		}
		return b
	}
	b = to.chunk(b, f, ChunkBlockStatus, 4+8*len(extents))
	b = be.AppendUint32(b, context)
	for _, e := range extents {
		b = be.AppendUint32(b, uint32(e.Length))
		b = be.AppendUint32(b, uint32(e.Flags))
	}
	return b
}

// DecodeDataOffset decodes the 8 bytes before the data of a data chunk.
func DecodeDataOffset(b []byte) (off uint64, err error) {
	if len(b) < 8 {
		return 0, malformed("data chunk of %d bytes", len(b))
	}
	return be.Uint64(b), nil
}

// DecodeHole decodes the payload of a hole chunk.
func DecodeHole(b []byte) (off uint64, n uint32, err error) {
	if len(b) != 12 {
		return 0, 0, malformed("hole chunk of %d bytes", len(b))
	}
	return be.Uint64(b), be.Uint32(b[8:]), nil
}

// ErrorChunk is the payload of an error chunk.
type ErrorChunk struct {
	Errno   Errno
	Message string
	// Offset of the export, of a ChunkErrorOffset.
	Offset uint64
}

// DecodeError decodes the payload of an error chunk. Of an unknown error type,
// the error number and message are taken, as section "Structured reply types" asks.
func DecodeError(t ChunkType, b []byte) (ErrorChunk, error) {
	if len(b) < 6 {
		return ErrorChunk{}, malformed("error chunk of %d bytes", len(b))
	}
	e := ErrorChunk{Errno: Errno(be.Uint32(b))}
	n := int(be.Uint16(b[4:]))
	if b = b[6:]; n > len(b) {
		return ErrorChunk{}, malformed("error message of %d bytes in %d", n, len(b))
	}
	if e.Errno == OK {
		return ErrorChunk{}, malformed("error chunk without an error")
	}
	if err := CheckString(b[:n], "error message"); err != nil {
		return ErrorChunk{}, err
	}
	e.Message, b = string(b[:n]), b[n:]
	switch {
	case t == ChunkError && len(b) != 0, t == ChunkErrorOffset && len(b) != 8:
		return ErrorChunk{}, malformed("%d bytes after the message of an error chunk", len(b))
	case t == ChunkErrorOffset:
		e.Offset = be.Uint64(b)
	}
	return e, nil
}

// DecodeBlockStatus decodes the payload of a ChunkBlockStatus or
// ChunkBlockStatusExt, appending the extents to dst. The reply must hold at
// least one extent, and none of length 0.
func DecodeBlockStatus(t ChunkType, b []byte, dst []Status) (context uint32, extents []Status, err error) {
	head, size := 4, 8
	if t == ChunkBlockStatusExt {
		head, size = 8, 16
	}
	if len(b) < head+size || (len(b)-head)%size != 0 {
		return 0, dst, malformed("block status chunk of %d bytes", len(b))
	}
	context = be.Uint32(b)
	if n := (len(b) - head) / size; t == ChunkBlockStatusExt && uint64(be.Uint32(b[4:])) != uint64(n) {
		return 0, dst, malformed("block status chunk that counts %d extents and holds %d", be.Uint32(b[4:]), n)
	}
	for b = b[head:]; len(b) > 0; b = b[size:] {
		var s Status
		if size == 16 {
			s = Status{be.Uint64(b), be.Uint64(b[8:])}
		} else {
			s = Status{uint64(be.Uint32(b)), uint64(be.Uint32(b[4:]))}
		}
		if s.Length == 0 {
			return 0, dst, malformed("block status extent of length 0")
		}
		dst = append(dst, s)
	}
	return context, dst, nil
}

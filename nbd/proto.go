package nbd

import "fmt"

// DefaultPort is the TCP port that IANA assigned to NBD.
const DefaultPort = 10809

// Magic numbers.
const (
	MagicGreeting        uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption          uint64 = 0x49484156454f5054 // "IHAVEOPT"
	MagicOptionReply     uint64 = 0x0003e889045565a9
	MagicOldstyle        uint64 = 0x00420281861253
	MagicRequest         uint32 = 0x25609513
	MagicExtendedRequest uint32 = 0x21e41c71
	MagicSimpleReply     uint32 = 0x67446698
	MagicStructuredReply uint32 = 0x668e33ef
	MagicExtendedReply   uint32 = 0x6e8a278c
)

// MaxString is the longest string (export name, context name, description,
// error message) that the protocol allows, in bytes.
const MaxString = 4096

// Mode is the header format of the transmission phase that a connection
// negotiated. The order matters: each mode includes the one before.
type Mode uint8

const (
	// Simple: compact requests, simple replies.
	Simple Mode = iota
	// Structured: compact requests; reads and block status are answered by
	// chunks, other commands by chunks or simple replies.
	Structured
	// Extended: 32-byte requests and replies with 64-bit lengths, chunks only.
	Extended
)

// String returns "simple", "structured" or "extended".
func (m Mode) String() string {
	switch m {
	case Simple:
		return "simple"
	case Structured:
		return "structured"
	}
	return "extended"
}

// HandshakeFlags are the server's, in the greeting (section "Handshake flags").
// The client's answer uses the same bits.
type HandshakeFlags uint16

// Handshake flags.
const (
	FlagFixedNewstyle HandshakeFlags = 1 << 0
	FlagNoZeroes      HandshakeFlags = 1 << 1
)

// TransmissionFlags describe an export (section "Transmission flags").
type TransmissionFlags uint16

// Transmission flags.
const (
	FlagHasFlags           TransmissionFlags = 1 << 0
	FlagReadOnly           TransmissionFlags = 1 << 1
	FlagSendFlush          TransmissionFlags = 1 << 2
	FlagSendFUA            TransmissionFlags = 1 << 3
	FlagRotational         TransmissionFlags = 1 << 4
	FlagSendTrim           TransmissionFlags = 1 << 5
	FlagSendWriteZeroes    TransmissionFlags = 1 << 6
	FlagSendDF             TransmissionFlags = 1 << 7
	FlagCanMultiConn       TransmissionFlags = 1 << 8
	FlagSendResize         TransmissionFlags = 1 << 9
	FlagSendCache          TransmissionFlags = 1 << 10
	FlagSendFastZero       TransmissionFlags = 1 << 11
	FlagBlockStatusPayload TransmissionFlags = 1 << 12
)

// Option is what the client haggles about (section "Option types").
type Option uint32

// Options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptPeekExport      Option = 4
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

var optionNames = map[Option]string{
	OptExportName: "EXPORT_NAME", OptAbort: "ABORT", OptList: "LIST", OptPeekExport: "PEEK_EXPORT",
	OptStartTLS: "STARTTLS", OptInfo: "INFO", OptGo: "GO", OptStructuredReply: "STRUCTURED_REPLY",
	OptListMetaContext: "LIST_META_CONTEXT", OptSetMetaContext: "SET_META_CONTEXT",
	OptExtendedHeaders: "EXTENDED_HEADERS",
}

// String returns the protocol's name of the option without its prefix.
func (o Option) String() string { return nameOf(optionNames, o, "option") }

// OptionReplyType is the server's answer to an option (section "Option reply types").
type OptionReplyType uint32

// Option replies. Those with the top bit are errors.
const (
	RepAck         OptionReplyType = 1
	RepServer      OptionReplyType = 2
	RepInfo        OptionReplyType = 3
	RepMetaContext OptionReplyType = 4

	repError            OptionReplyType = 1 << 31
	RepErrUnsupported                   = repError + 1
	RepErrPolicy                        = repError + 2
	RepErrInvalid                       = repError + 3
	RepErrPlatform                      = repError + 4
	RepErrTLSRequired                   = repError + 5
	RepErrUnknown                       = repError + 6
	RepErrShutdown                      = repError + 7
	RepErrBlockSizeReqd                 = repError + 8
	RepErrTooBig                        = repError + 9
	RepErrExtHeaderReqd                 = repError + 10
)

var optionReplyNames = map[OptionReplyType]string{
	RepAck: "ACK", RepServer: "SERVER", RepInfo: "INFO", RepMetaContext: "META_CONTEXT",
	RepErrUnsupported: "ERR_UNSUP", RepErrPolicy: "ERR_POLICY", RepErrInvalid: "ERR_INVALID",
	RepErrPlatform: "ERR_PLATFORM", RepErrTLSRequired: "ERR_TLS_REQD", RepErrUnknown: "ERR_UNKNOWN",
	RepErrShutdown: "ERR_SHUTDOWN", RepErrBlockSizeReqd: "ERR_BLOCK_SIZE_REQD",
	RepErrTooBig: "ERR_TOO_BIG", RepErrExtHeaderReqd: "ERR_EXT_HEADER_REQD",
}

// IsError reports whether the reply refuses the option.
func (t OptionReplyType) IsError() bool { return t&repError != 0 }

// String returns the protocol's name of the reply without its prefix.
func (t OptionReplyType) String() string { return nameOf(optionReplyNames, t, "reply") }

// InfoType is a kind of information about an export (section "NBD_INFO types").
type InfoType uint16

// Information types.
const (
	InfoExport      InfoType = 0
	InfoName        InfoType = 1
	InfoDescription InfoType = 2
	InfoBlockSize   InfoType = 3
)

var infoNames = map[InfoType]string{
	InfoExport: "EXPORT", InfoName: "NAME", InfoDescription: "DESCRIPTION", InfoBlockSize: "BLOCK_SIZE",
}

// String returns the protocol's name of the type without its prefix.
func (t InfoType) String() string { return nameOf(infoNames, t, "info") }

// Command is a request's type (section "Request types").
type Command uint16

// Commands.
const (
	CmdRead        Command = 0
	CmdWrite       Command = 1
	CmdDisconnect  Command = 2
	CmdFlush       Command = 3
	CmdTrim        Command = 4
	CmdCache       Command = 5
	CmdWriteZeroes Command = 6
	CmdBlockStatus Command = 7
	CmdResize      Command = 8
)

var commandNames = map[Command]string{
	CmdRead: "READ", CmdWrite: "WRITE", CmdDisconnect: "DISC", CmdFlush: "FLUSH", CmdTrim: "TRIM",
	CmdCache: "CACHE", CmdWriteZeroes: "WRITE_ZEROES", CmdBlockStatus: "BLOCK_STATUS", CmdResize: "RESIZE",
}

// String returns the protocol's name of the command without its prefix.
func (c Command) String() string { return nameOf(commandNames, c, "command") }

// CommandFlags modify a request (section "Command flags").
type CommandFlags uint16

// Command flags.
const (
	CmdFlagFUA        CommandFlags = 1 << 0
	CmdFlagNoHole     CommandFlags = 1 << 1
	CmdFlagDF         CommandFlags = 1 << 2
	CmdFlagReqOne     CommandFlags = 1 << 3
	CmdFlagFastZero   CommandFlags = 1 << 4
	CmdFlagPayloadLen CommandFlags = 1 << 5
)

// ChunkFlags are the flags of a structured or extended reply chunk.
type ChunkFlags uint16

// ChunkDone marks the last chunk of a reply.
const ChunkDone ChunkFlags = 1 << 0

// ChunkType is the type of a reply chunk (section "Structured reply types").
type ChunkType uint16

// Chunk types. Those with the top bit are errors.
const (
	ChunkNone           ChunkType = 0
	ChunkOffsetData     ChunkType = 1
	ChunkOffsetHole     ChunkType = 2
	ChunkBlockStatus    ChunkType = 5
	ChunkBlockStatusExt ChunkType = 6

	chunkError       ChunkType = 1 << 15
	ChunkError                 = chunkError + 1
	ChunkErrorOffset           = chunkError + 2
)

var chunkNames = map[ChunkType]string{
	ChunkNone: "NONE", ChunkOffsetData: "OFFSET_DATA", ChunkOffsetHole: "OFFSET_HOLE",
	ChunkBlockStatus: "BLOCK_STATUS", ChunkBlockStatusExt: "BLOCK_STATUS_EXT",
	ChunkError: "ERROR", ChunkErrorOffset: "ERROR_OFFSET",
}

// IsError reports whether the chunk carries an error, of a known type or not.
func (t ChunkType) IsError() bool { return t&chunkError != 0 }

// String returns the protocol's name of the chunk type without its prefix.
func (t ChunkType) String() string { return nameOf(chunkNames, t, "chunk") }

// Meta contexts and the namespaces they lie in.
const (
	// ContextAllocation is the context of holes and zeroes (StatusHole, StatusZero).
	ContextAllocation = "base:allocation"
	// ContextDirtyPrefix begins the context of a dirty bitmap (StatusDirty).
	ContextDirtyPrefix = "qemu:dirty-bitmap:"
	// ContextDepth is the context whose status is the depth in the backing chain.
	ContextDepth = "qemu:allocation-depth"
)

// Status bits of base:allocation and of dirty bitmaps.
const (
	StatusHole  = 1 << 0
	StatusZero  = 1 << 1
	StatusDirty = 1 << 0
)

func nameOf[T interface {
	comparable
	~uint16 | ~uint32
}](names map[T]string, v T, kind string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return fmt.Sprintf("%s %#x", kind, uint64(v))
}

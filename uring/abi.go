package uring

// The kernel's interface, include/uapi/linux/io_uring.h.

const (
	setupIOPoll       = 1 << 0
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupRDisabled    = 1 << 6
	setupSubmitAll    = 1 << 7
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13

	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2

	enterGetEvents = 1 << 0

	offSQRing = 0
	offSQEs   = 0x10000000

	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2

	registerBuffers     = 0
	registerFiles       = 2
	unregisterFiles     = 3
	registerProbe       = 8
	registerEnableRings = 12

	sqeFixedFile = 1 << 0

	cqeFMore = 1 << 1

	pollAddMulti = 1 << 0
	fsyncData    = 1 << 0
)

// opcode is the kind of an operation (IORING_OP_*).
type opcode uint8

const (
	opNop         opcode = 0 // for tests
	opReadv       opcode = 1
	opWritev      opcode = 2
	opFsync       opcode = 3
	opReadFixed   opcode = 4
	opWriteFixed  opcode = 5
	opPollAdd     opcode = 6
	opAsyncCancel opcode = 14
	opFallocate   opcode = 17
	opRead        opcode = 22
	opWrite       opcode = 23
)

// needed lists the operations without which New refuses the ring.
var needed = [...]opcode{
	opReadv, opWritev, opFsync, opReadFixed, opWriteFixed, opPollAdd, opAsyncCancel, opFallocate, opRead, opWrite,
}

type sqringOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type cqringOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  sqringOffsets
	cqOff                                                                  cqringOffsets
}

// sqe is struct io_uring_sqe (64 bytes).
type sqe struct {
	opcode   opcode
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	len      uint32
	opFlags  uint32
	userData uint64
	bufIndex uint16
	_        uint16
	_        int32
	_        uint64
	_        uint64
}

type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

type probeOp struct {
	op    uint8
	_     uint8
	flags uint16
	_     uint32
}

const (
	probeOps       = 64
	probeSupported = 1 << 0
)

type probe struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [probeOps]probeOp
}

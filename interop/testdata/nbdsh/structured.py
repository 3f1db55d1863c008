# Structured replies: chunks cover the request, holes come as holes, DF is kept,
# a read's error is never a simple reply.
# serve: s=--read-only $HOLEY
import errno, sys
import nbd

socket = dict(a.split("=", 1) for a in sys.argv[1:])["s"]
PIECE = 65536


def connect(structured=True):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.connect_unix(socket)
    assert h.get_structured_replies_negotiated() == structured
    return h


def read(h, count, offset, flags=0):
    chunks = []

    def chunk(buf, off, status, err):
        chunks.append((off, len(buf), status, bytes(buf)))
        return 0

    data = h.pread_structured(count, offset, chunk, flags)
    return bytes(data), chunks


h = connect()
plain = connect(structured=False)
for count, offset in ((PIECE, 0), (PIECE, PIECE), (4 * PIECE, 0), (1 << 20, 512), (8 << 20, 0), (1, 8191), (3 * PIECE, PIECE // 2)):
    data, chunks = read(h, count, offset)
    assert data == bytes(plain.pread(count, offset)), f"{count} at {offset}: the two kinds of reply differ"
    at = offset
    for off, n, status, buf in sorted(chunks):
        assert off == at, f"{count} at {offset}: chunk at {off}, want {at}"
        at += n
        if status == nbd.READ_HOLE:
            assert data[off - offset : off - offset + n] == bytes(n), "a hole chunk over data"
    assert at == offset + count, f"{count} at {offset}: chunks end at {at}"

_, chunks = read(h, PIECE, PIECE)
assert all(c[2] == nbd.READ_HOLE for c in chunks) or len(chunks) == 1

for count, offset in ((65536, 0), (65536, PIECE // 2), (4096, PIECE - 512), (512, 1)):
    data, chunks = read(h, count, offset, nbd.CMD_FLAG_DF)
    assert len(chunks) == 1, f"DF: {count} at {offset} came in {len(chunks)} pieces"
try:
    data, chunks = read(h, 4 << 20, 0, nbd.CMD_FLAG_DF)
    assert len(chunks) == 1, "DF: a large read came in pieces"
except nbd.Error as e:
    assert e.errnum in (errno.EOVERFLOW, errno.EINVAL), e

try:
    h.pread(4096, h.get_size())
    raise AssertionError("read past the end")
except nbd.Error as e:
    assert e.errnum == errno.EINVAL
data, _ = read(h, 4096, 0)
assert data == bytes(plain.pread(4096, 0))

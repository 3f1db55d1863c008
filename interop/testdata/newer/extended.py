# Extended headers through libnbd >= 1.18: 64-bit lengths, block status of a
# whole disk at once and of chosen contexts, errors.
# Arguments: the socket of an empty disk of 8 TiB, and of one that alternates
# 64 KiB of data and of hole.
import errno, sys
import nbd

PIECE = 65536


def connect(socket):
    h = nbd.NBD()
    h.set_strict_mode(nbd.STRICT_AUTO_FLAG)  # send what is asked
    h.add_meta_context("base:allocation")
    h.connect_unix(socket)
    assert h.get_extended_headers_negotiated()
    return h


def status(h, count, offset, flags=0):
    got = []
    h.block_status_64(count, offset, lambda context, off, entries, err: got.append(entries) or 0, flags)
    assert len(got) == 1
    return got[0]


def refused(want, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == want, e
    else:
        raise AssertionError(f"accepted, want {errno.errorcode[want]}")


h = connect(sys.argv[1])
size = h.get_size()
h.zero(size, 0)
h.trim(size, 0)
assert status(h, size, 0) == [(size, 3)], "an empty disk is one extent"
h.pwrite(b"x" * 70000, 5 << 40)
assert h.pread(70000, 5 << 40) == b"x" * 70000
assert [f for _, f in status(h, size, 0)] == [3, 0, 3]
refused(errno.EINVAL, lambda: h.pread(512, size))
refused(errno.ENOSPC, lambda: h.pwrite(b"x" * 512, size))
refused(errno.ENOSPC, lambda: h.zero(1 << 42, size - 512))
refused(errno.EINVAL, lambda: h.trim(1 << 42, size - 512))
refused(errno.EINVAL, lambda: h.pwrite(b"x" * 512, 0, flags=1 << 9))
if h.can_block_status_payload():
    got = []
    h.block_status_filter(1 << 20, 0, ["base:allocation"], lambda context, off, entries, err: got.append(context) or 0)
    assert got == ["base:allocation"]
h.zero(size, 0)
h.shutdown()

h = connect(sys.argv[2])
entries = status(h, h.get_size(), 0)
assert entries[:3] == [(PIECE, 0), (PIECE, 3), (PIECE, 0)], entries[:3]
assert len(status(h, 400000, 1000, nbd.CMD_FLAG_REQ_ONE)) == 1
for count, offset in ((1 << 20, 0), (PIECE, PIECE), (512, 100)):
    chunks = []
    data = h.pread_structured(count, offset, lambda buf, off, kind, err: chunks.append(len(buf)) or 0)
    assert sum(chunks) == count
h.shutdown()

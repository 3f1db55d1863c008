# Block status: contexts, REQ_ONE, where extents may end.
# serve: s=--read-only $HOLEY
# serve: none=--read-only --filter noextents $HOLEY
import sys
import nbd

servers = dict(a.split("=", 1) for a in sys.argv[1:])
PIECE = 65536


def status(h, count, offset, flags=0):
    got = {}

    def extent(context, off, entries, err):
        assert off == offset
        assert context not in got, "one chunk per context"
        got[context] = list(zip(entries[::2], entries[1::2]))
        return 0

    h.block_status(count, offset, extent, flags)
    return got


h = nbd.NBD()
h.add_meta_context("base:allocation")
h.add_meta_context("nobody:knows")
h.connect_unix(servers["s"])
assert h.can_meta_context("base:allocation")
assert not h.can_meta_context("nobody:knows")
size = h.get_size()
for count, offset in ((size, 0), (PIECE, 0), (PIECE + 512, 0), (PIECE, PIECE // 2), (512, 3 * PIECE + 1024), (1, size - 1)):
    entries = status(h, count, offset)["base:allocation"]
    total = sum(n for n, _ in entries)
    assert all(n > 0 for n, _ in entries)
    assert total - entries[-1][0] < count, "only the last extent may reach over the request"
    assert offset + total <= size, "an extent ends past the disk"
    at = offset
    for n, flags in entries:
        hole = (at // PIECE) % 2 == 1
        assert flags == (3 if hole else 0), f"{n} bytes at {at} have flags {flags}"
        assert n <= PIECE
        at += n
    one = status(h, count, offset, nbd.CMD_FLAG_REQ_ONE)["base:allocation"]
    assert len(one) == 1 and 0 < one[0][0] <= count, f"REQ_ONE gave {one} for {count}"
h.shutdown()

# A server that knows nothing says that everything is data, if it says anything.
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_unix(servers["none"])
if h.can_meta_context("base:allocation"):
    for n, flags in status(h, size, 0)["base:allocation"]:
        assert flags == 0
h.shutdown()

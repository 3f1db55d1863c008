# Many requests at once on several connections, large ones, and that a flush on
# one connection covers the writes of another.
# serve: s=$EMPTY
import random, sys
import nbd

socket = dict(a.split("=", 1) for a in sys.argv[1:])["s"]


def connect():
    h = nbd.NBD()
    h.connect_unix(socket)
    return h


a, b = connect(), connect()
assert a.can_multi_conn()
size = a.get_size()

# 49,865,728 bytes, the size of one known tester's request, and 64 MiB.
for n in (49865728, 64 << 20):
    big = random.Random(n).randbytes(n)
    a.pwrite(big, 512)
    b.flush()
    assert b.pread(n, 512) == big, f"{n} bytes came back wrong"
big = None

# Random small requests, up to 64 in flight on each connection.
model = bytearray(4 << 20)
a.pwrite(bytes(model), 0)
rng = random.Random(1)
pending = {}


def drain(limit):
    while len(pending) > limit:
        for h in (a, b):
            h.poll(0)
            while any(k[0] == (h is a) for k in pending):
                cookie = h.aio_peek_command_completed()
                if cookie == 0:
                    break
                assert h.aio_command_completed(cookie)
                kind, buf, want, _ = pending.pop((h is a, cookie))
                if kind == "read":
                    assert bytes(buf.to_bytearray()) == want, "a read came back wrong"


for i in range(6000):
    block = rng.randrange(1024)
    busy = {v[3] for v in pending.values()}
    if block in busy:
        continue  # overlapping requests have no order
    h = a if rng.random() < 0.5 else b
    off = block * 4096
    if rng.random() < 0.5:
        p = rng.randbytes(4096)
        model[off : off + 4096] = p
        buf = nbd.Buffer.from_bytearray(bytearray(p))
        cookie = h.aio_pwrite(buf, off)
        pending[(h is a, cookie)] = ("write", buf, None, block)
    else:
        buf = nbd.Buffer(4096)
        cookie = h.aio_pread(buf, off)
        pending[(h is a, cookie)] = ("read", buf, bytes(model[off : off + 4096]), block)
    drain(128)
drain(0)
a.flush()
assert b.pread(len(model), 0) == model
a.shutdown()
b.shutdown()

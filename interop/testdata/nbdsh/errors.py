# What a client must not send is refused with the error the protocol names, and
# the connection goes on.
# serve: rw=$EMPTY
# serve: ro=--read-only $HOLEY
# serve: slow=--filter nozero:fastzeromode=none $EMPTY
# serve: refuses=--filter nozero:zeromode=emulate,fastzeromode=slow $EMPTY
import errno, sys
import nbd

servers = dict(a.split("=", 1) for a in sys.argv[1:])


def connect(name):
    h = nbd.NBD()
    h.set_strict_mode(0)  # send everything
    h.connect_unix(servers[name])
    return h


def refused(want, what, f):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == want, f"{what}: {errno.errorcode.get(e.errnum, e.errnum)}, want {errno.errorcode[want]}"
    else:
        raise AssertionError(f"{what} was accepted, want {errno.errorcode[want]}")


FUA, NO_HOLE, DF, REQ_ONE, FAST = 1, 2, 4, 8, 16

h = connect("rw")
size = h.get_size()
data = bytes(4096)
refused(errno.EINVAL, "read past the end", lambda: h.pread(4096, size))
refused(errno.EINVAL, "read over the end", lambda: h.pread(4096, size - 512))
refused(errno.EINVAL, "read at 2^63", lambda: h.pread(512, 1 << 62))
refused(errno.ENOSPC, "write past the end", lambda: h.pwrite(data, size))
refused(errno.ENOSPC, "write over the end", lambda: h.pwrite(data, size - 512))
refused(errno.ENOSPC, "zero over the end", lambda: h.zero(4096, size - 512))
refused(errno.EINVAL, "trim over the end", lambda: h.trim(4096, size - 512))
refused(errno.EINVAL, "unknown flag on read", lambda: h.pread(512, 0, flags=1 << 9))
refused(errno.EINVAL, "unknown flag on write", lambda: h.pwrite(data, 0, flags=1 << 9))
refused(errno.EINVAL, "DF on write", lambda: h.pwrite(data, 0, flags=DF))
refused(errno.EINVAL, "FAST_ZERO on trim", lambda: h.trim(4096, 0, flags=FAST))
refused(errno.EINVAL, "REQ_ONE on read", lambda: h.pread(512, 0, flags=REQ_ONE))
refused(errno.EINVAL, "NO_HOLE on write", lambda: h.pwrite(data, 0, flags=NO_HOLE))
# FUA is taken by every command once it was offered.
h.pread(512, 0, flags=FUA)
h.pwrite(data, 0, flags=FUA)
h.flush(flags=FUA)
h.trim(4096, 0, flags=FUA)
h.cache(4096, 0, flags=FUA)
h.zero(4096, 0, flags=FUA | NO_HOLE)
h.zero(4096, 0, flags=FUA | FAST)
assert h.pread(4096, 0) == data
# Block status without a negotiated context.
refused(errno.EINVAL, "block status without a context", lambda: h.block_status(4096, 0, lambda *a: 0))
h.shutdown()

h = connect("ro")
before = h.pread(65536, 0)
refused(errno.EPERM, "write to a read-only export", lambda: h.pwrite(data, 0))
refused(errno.EPERM, "zero on a read-only export", lambda: h.zero(4096, 0))
refused(errno.EPERM, "trim on a read-only export", lambda: h.trim(4096, 0))
assert h.pread(65536, 0) == before
h.shutdown()

h = connect("slow")
assert not h.can_fast_zero()
refused(errno.EINVAL, "FAST_ZERO that was not offered", lambda: h.zero(4096, 0, flags=FAST))
h.zero(4096, 0)
h.shutdown()

h = connect("refuses")
assert h.can_fast_zero()
h.pwrite(b"x" * 4096, 0)
refused(errno.ENOTSUP, "a zero that cannot be fast", lambda: h.zero(4096, 0, flags=FAST))
assert h.pread(4096, 0) == b"x" * 4096, "a refused zero touched the data"
h.zero(4096, 0)
assert h.pread(4096, 0) == data
h.shutdown()

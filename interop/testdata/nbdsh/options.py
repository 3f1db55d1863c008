# The handshake by hand: LIST, INFO, LIST_META_CONTEXT, GO, ABORT, and that a
# wrong name leaves the server ready for the right one.
# serve: s=first=mem:1M second=mem:2M
import errno, sys
import nbd

socket = dict(a.split("=", 1) for a in sys.argv[1:])["s"]


def start():
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(socket)
    return h


h = start()
names = []
h.opt_list(lambda name, description: names.append(name))
assert sorted(names) == ["first", "second"], names

h.set_export_name("nobody")
try:
    h.opt_info()
    raise AssertionError("INFO of an unknown export")
except nbd.Error as e:
    assert e.errnum == errno.ENOENT, e

h.set_export_name("second")
h.add_meta_context("base:allocation")
h.opt_info()
info = (h.get_size(), h.is_read_only(), h.can_fua(), h.can_multi_conn(), h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_MAXIMUM))
assert info[0] == 2 << 20

contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ["base:allocation"], contexts

h.opt_go()
assert info == (h.get_size(), h.is_read_only(), h.can_fua(), h.can_multi_conn(), h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_MAXIMUM)), "INFO and GO differ"
assert h.can_meta_context("base:allocation")
h.pwrite(b"y" * 512, 0)
h.shutdown()

# Wildcards: "base:" lists, as does no query at all.
for queries in ([], ["base:"]):
    h = start()
    h.set_export_name("first")
    for q in queries:
        h.add_meta_context(q)
    contexts = []
    h.opt_list_meta_context(lambda name: contexts.append(name))
    assert contexts == ["base:allocation"], (queries, contexts)
    h.opt_abort()

# Without GO: EXPORT_NAME.
h = nbd.NBD()
h.set_export_name("first")
h.set_handshake_flags(0)
h.connect_unix(socket)
assert h.get_size() == 1 << 20 and h.get_protocol() in ("newstyle", "newstyle-fixed")
h.pwrite(b"z" * 512, 512)
assert h.pread(512, 512) == b"z" * 512
h.shutdown()

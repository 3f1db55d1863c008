# What clients written on Python's http.client rely on, against a daemon.
#
#   httpclient.py CONTROL_SOCKET LOCAL_SOCKET IMAGE
import json
import os
import socket
import sys
from http.client import HTTPConnection


class UnixConnection(HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def call(c, status, method, path, body=None, headers={}):
    c.request(method, path, body=body, headers=headers)
    r = c.getresponse()
    text = r.read()
    if r.status != status:
        raise RuntimeError("%s %s: %d %r, want %d" % (method, path, r.status, text, status))
    if r.getheader("content-length") is None or r.getheader("date") is None or r.getheader("server") is None:
        raise RuntimeError("%s %s: headers %r" % (method, path, r.getheaders()))
    return r, text


control, local, image = UnixConnection(sys.argv[1]), UnixConnection(sys.argv[2]), sys.argv[3]
size = os.path.getsize(image)
ticket = {"uuid": "c0ffee00-1234-4000-8000-000000000001", "size": size, "ops": ["write"], "timeout": 300,
          "url": "file://" + image, "transfer_id": "py", "something-new": True}
path = "/images/" + ticket["uuid"]

call(control, 200, "PUT", "/tickets/" + ticket["uuid"], json.dumps(ticket).encode())
first = None
for _ in range(3):  # one connection serves them all
    call(local, 200, "OPTIONS", path)
    call(local, 200, "PUT", path + "?flush=n", b"x" * 5000, {"Content-Range": "bytes 100-*/*"})
    r, text = call(local, 206, "GET", path, None, {"Range": "bytes=100-5099"})
    if text != b"x" * 5000 or r.getheader("content-range") != "bytes 100-5099/%d" % size:
        raise RuntimeError("GET: %r %r" % (r.getheaders(), text[:10]))
    call(local, 416, "GET", path, None, {"Range": "bytes=%d-" % size})
    call(local, 400, "PATCH", path, b"nonsense")
    call(local, 404, "GET", path + "/extents?context=dirty")
    call(local, 200, "GET", path + "/checksum?algorithm=sha1")
    first = first or local.sock
    if local.sock is not first:
        raise RuntimeError("the connection was not kept")

# A body that is sent only when the daemon asks for it.
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[2])
s.sendall(("PUT %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n" % path).encode())
if not s.recv(4096).startswith(b"HTTP/1.1 100 "):
    raise RuntimeError("no 100")
s.sendall(b"data")
if not s.recv(4096).startswith(b"HTTP/1.1 200 "):
    raise RuntimeError("no 200")
s.close()

_, text = call(control, 200, "GET", "/tickets/" + ticket["uuid"])
state = json.loads(text)
if state["transferred"] < 5000 or state["canceled"] or state["transfer_id"] != "py":
    raise RuntimeError("ticket: %r" % state)
call(control, 200, "PATCH", "/tickets/" + ticket["uuid"], b'{"timeout": 600}')
for _ in range(2):  # 204 with a content-length, on a connection that goes on
    r, _ = call(control, 204, "DELETE", "/tickets/" + ticket["uuid"])
    if r.getheader("content-length") != "0":
        raise RuntimeError("204: %r" % r.getheaders())
call(control, 404, "GET", "/tickets/" + ticket["uuid"])
r, _ = call(local, 403, "GET", path)
if r.getheader("connection") != "close":
    raise RuntimeError("a 403 does not close: %r" % r.getheaders())
print("ok")

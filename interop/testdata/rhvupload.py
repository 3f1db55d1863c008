# Uploads an image the way the nbdkit plugin of virt-v2v's "-o rhv-upload" does:
# the same requests with the same headers in the same order, on a pool of
# connections with a thread each, by Python's http.client as there.
#
#   rhvupload.py URL CAFILE IMAGE SOCKET|-
import json
import os
import queue
import socket
import ssl
import sys
import threading
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlparse

PIECE = 256 << 10


class UnixConnection(HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


def connect(url, cafile, path):
    if path != "-":
        return UnixConnection(path)
    return HTTPSConnection(url.hostname, url.port, context=ssl.create_default_context(cafile=cafile))


def expect(http, status, what):
    r = http.getresponse()
    body = r.read()
    if r.status != status or r.getheader("content-length") is None:
        raise RuntimeError("%s: %d %r %r" % (what, r.status, body, r.getheaders()))
    return body


def options(url, cafile):
    http = connect(url, cafile, "-")
    http.request("OPTIONS", url.path)
    got = json.loads(expect(http, 200, "OPTIONS"))
    http.close()
    if not {"flush", "zero"} <= set(got["features"]):
        raise RuntimeError("features: %r" % got)
    return got


def send(http, url, offset, data):
    if data.strip(b"\0"):
        http.putrequest("PUT", url.path + "?flush=n")
        http.putheader("Content-Range", "bytes %d-%d/*" % (offset, offset + len(data) - 1))
        http.putheader("Content-Length", str(len(data)))
        http.endheaders()
        http.send(data)
        expect(http, 200, "PUT")
    else:
        patch(http, url, {"op": "zero", "offset": offset, "size": len(data), "flush": False})


def patch(http, url, message):
    body = json.dumps(message).encode()
    http.request("PATCH", url.path, body=body, headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    expect(http, 200, message["op"])


def read(http, url, offset, size):
    http.request("GET", url.path, headers={"Range": "bytes=%d-%d" % (offset, offset + size - 1)})
    r = http.getresponse()
    data = r.read()
    if r.status != 206 or int(r.getheader("content-length")) != size:
        raise RuntimeError("GET: %d %r" % (r.status, r.getheaders()))
    return data


def main():
    url, cafile, image, path = urlparse(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    able = options(url, cafile)
    if path != "-" and able["unix_socket"] != path:
        raise RuntimeError("unix_socket: %r" % able)
    pool = queue.Queue()
    count = min(able["max_readers"], able["max_writers"], 4)
    for _ in range(count):
        pool.put(connect(url, cafile, path))
    work = queue.Queue()
    with open(image, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        for offset in range(0, size, PIECE):
            work.put((offset, f.read(PIECE)))
    failed = []

    def worker():
        try:
            while True:
                offset, data = work.get_nowait()
                http = pool.get()
                send(http, url, offset, data)
                pool.put(http)
        except queue.Empty:
            pass
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=worker) for _ in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    connections = [pool.get() for _ in range(count)]
    for http in connections:  # a flush on every connection, the pool locked
        patch(http, url, {"op": "flush"})
    with open(image, "rb") as f:
        f.seek(size // 2)
        if read(connections[0], url, size // 2, 4096) != f.read(4096):
            raise RuntimeError("the image reads back differently")
    for http in connections:
        http.close()
    print("connections", count)


main()

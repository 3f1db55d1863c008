# A stand-in for oVirt's Python SDK, which Debian does not package: as much of
# it as virt-v2v's scripts use, over the engine's REST API in XML.
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from xml.etree import ElementTree

from . import types


class Error(Exception):
    pass


class NotFoundError(Error):
    pass


class AuthError(Error):
    pass


class Connection:
    def __init__(self, url, username, password, ca_file=None, log=None, insecure=False):
        parts = urllib.parse.urlsplit(url)
        self._origin = "%s://%s:%d" % (parts.scheme, parts.hostname, parts.port or 443)
        self._root = parts.path.rstrip("/")
        self._user, self._password = username, password
        self._context = ssl.create_default_context(cafile=ca_file)
        if insecure:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        self._token = None

    def system_service(self):
        return Service(self, self._root)

    def follow_link(self, link):
        return self.call("GET", link.href)

    def close(self):
        if self._token:
            self._open("POST", "/ovirt-engine/services/sso-logout", urllib.parse.urlencode({"scope": "", "token": self._token}).encode(),
                       {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"})
            self._token = None

    def call(self, method, path, body=None, query=None):
        """Sends types' XML and returns the answer as one of types."""
        if not self._token:
            self._log_in()
        if query:
            path += "?" + urllib.parse.urlencode(query)
        headers = {"Accept": "application/xml", "Version": "4", "Authorization": "Bearer " + self._token}
        if body is not None:
            headers["Content-Type"] = "application/xml"
            body = ElementTree.tostring(body, "utf-8")
        text = self._open(method, path, body, headers)
        return types.read(ElementTree.fromstring(text)) if text else None

    def _log_in(self):
        form = {"grant_type": "password", "scope": "ovirt-app-api", "username": self._user, "password": self._password}
        text = self._open("POST", "/ovirt-engine/sso/oauth/token", urllib.parse.urlencode(form).encode(),
                          {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"})
        self._token = json.loads(text)["access_token"]

    def _open(self, method, path, body, headers):
        request = urllib.request.Request(self._origin + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self._context) as answer:
                return answer.read()
        except urllib.error.HTTPError as e:
            text = e.read().decode(errors="replace")
            kind = {404: NotFoundError, 401: AuthError, 403: AuthError}.get(e.code, Error)
            raise kind("HTTP response code is %d: %s" % (e.code, text)) from None


class Service:
    """The service at a path; the SDK's many classes differ in names alone."""

    def __init__(self, connection, path):
        self._connection, self._path = connection, path

    def _below(self, *names):
        return Service(self._connection, "/".join((self._path,) + names))

    def __getattr__(self, name):
        kind, end = name[:-len("_service")], name[-len("_service"):]
        if end != "_service":
            raise AttributeError(name)
        if kind in types.COLLECTIONS:
            return lambda: self._below(kind.replace("_", ""))
        return lambda id: self._below(id)

    def list(self, search=None, case_sensitive=None):
        query = {"search": search, "case_sensitive": None if case_sensitive is None else str(case_sensitive).lower()}
        return self._connection.call("GET", self._path, query={k: v for k, v in query.items() if v is not None})

    def get(self):
        return self._connection.call("GET", self._path)

    def add(self, *args, query=None, **kwargs):
        (thing,) = args + tuple(kwargs.values())
        return self._connection.call("POST", self._path, body=types.write(thing), query=query)

    def remove(self):
        return self._connection.call("DELETE", self._path)

    def finalize(self):
        return self._act("finalize")

    def cancel(self):
        return self._act("cancel")

    def extend(self):
        return self._act("extend")

    def _act(self, name):
        return self._connection.call("POST", self._path + "/" + name, body=ElementTree.Element("action"))

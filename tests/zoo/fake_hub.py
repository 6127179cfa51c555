"""A hub on loopback: the endpoints that huggingface_hub 2.4 uses to download a snapshot and to upload a folder."""

import base64
import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"


class FakeHub:
    """Holds ``repos[id][path] = bytes``, each with one commit on ``main``."""

    def __init__(self):
        self.repos, self.requests, self.private = {}, [], {}
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), type("Handler", (_Handler,), {"hub": self}))
        self.port = self.server.server_port
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def closed(self):
        """Nobody answers at the hub's port."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def add(self, hub_id, folder):
        self.repos[hub_id] = {path.name: path.read_bytes() for path in folder.iterdir()}

    def commit(self, hub_id):
        files = self.repos[hub_id]
        return hashlib.sha1(repr([(p, _oid(files[p])) for p in sorted(files)]).encode()).hexdigest()


def _oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _is_large(path):
    return path.endswith(".safetensors")


def _listing(path, content):
    entry = {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
    lfs = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return {**entry, "lfs": lfs} if _is_large(path) else entry


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *args):
        self.hub.requests.append(f"{self.command} {self.path}")

    def answer(self, body=b"", status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def find(self, hub_id, revision):
        """Answers with the hub's error if there is no such thing."""
        if hub_id not in self.hub.repos:
            return self.answer(status=404, X_Error_Code="RepoNotFound")
        if revision not in ("main", self.hub.commit(hub_id)):
            return self.answer(status=404, X_Error_Code="RevisionNotFound")
        return self.hub.repos[hub_id]

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, verb, revision, *rest = parts[2:] if api else parts
        hub_id = f"{owner}/{name}"
        files = self.find(hub_id, revision)
        if files is None:
            return None
        commit = self.hub.commit(hub_id)
        if api and verb == "revision":
            return self.answer({"id": hub_id, "sha": commit, "siblings": [{"rfilename": p} for p in files]})
        if api and verb == "tree":
            return self.answer([_listing(path, content) for path, content in files.items()])
        content = files["/".join(rest)]
        if verb == "resolve" and _is_large(rest[-1]):  # kept elsewhere, as the Hub does
            location, checksum = f"{self.hub.url}/{hub_id}/large/{revision}/{rest[-1]}", _sha256(content)
            linked = {"X_Linked_Etag": f'"{checksum}"', "X_Linked_Size": str(len(content))}
            return self.answer(status=302, Location=location, X_Repo_Commit=commit, ETag='"pointer"', **linked)
        assert verb in ("resolve", "large"), self.path
        return self.answer(content, ETag=f'"{_oid(content)}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, status=401)
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return self.answer({"warnings": [], "errors": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            hub_id = f"{asked.get('organization', 'me')}/{asked['name']}"
            exists = hub_id in self.hub.repos
            self.hub.repos.setdefault(hub_id, {})
            self.hub.private.setdefault(hub_id, asked.get("private", asked.get("visibility")))
            return self.answer({"url": f"{self.hub.url}/{hub_id}"}, status=409 if exists else 200)
        _, _, owner, name, verb, _ = self.path.strip("/").split("/")
        if verb == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer({"files": modes})
        assert verb == "commit", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.hub.repos[f"{owner}/{name}"][line["value"]["path"]] = content
        commit = self.hub.commit(f"{owner}/{name}")
        return self.answer({"commitUrl": f"{self.hub.url}/{owner}/{name}/commit/{commit}", "commitOid": commit})

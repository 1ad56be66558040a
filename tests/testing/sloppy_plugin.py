"""A volume plugin with the mistakes that plugins are made with; voltest has to find every one of them.

    sloppy_plugin.py SOCKET STATE [worse]

It keeps its volumes in memory only, joins names to paths, ignores options, keeps holders in a set that any unmount
empties, takes one lock around everything, looks at the storage in Get, and tells errors with status 200.

The worse one makes others: it empties its folder at every start, takes no null for options, refuses what is there
already, never forgets a holder, knows no Podman, and gives nonsense for answers.
"""

import json
import os
import shutil
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

socket, state = sys.argv[1:3]
worse = sys.argv[3:] == ["worse"]
volumes, lock = {}, threading.Lock()


def create(request):
    name, options = request.get("Name"), request.get("Opts") or {}
    folder = options.get("folder") or os.path.join(state, "volumes", str(name))
    os.makedirs(folder, exist_ok=True)
    volumes[name] = {"folder": folder, "holders": set()}
    return {}


def mount(request):
    volume = volumes[request.get("Name")]
    os.listdir(volume["folder"])
    if request.get("ID") in volume["holders"]:
        raise RuntimeError("already mounted by this id")
    volume["holders"].add(request.get("ID"))
    return {"Mountpoint": volume["folder"]}


def unmount(request):
    volumes[request.get("Name")]["holders"].clear()
    return {}


def remove(request):
    shutil.rmtree(volumes.pop(request.get("Name"))["folder"])
    return {}


def shown(name):
    os.stat(volumes[name]["folder"])
    return {"Name": name, "CreatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "Mountpoint": volumes[name]["folder"]}


VERBS = {
    "/Plugin.Activate": lambda request: {"Implements": ["VolumeDriver"]},
    "/VolumeDriver.Capabilities": lambda request: {"Capabilities": {"Scope": "local"}},
    "/VolumeDriver.Create": create,
    "/VolumeDriver.Mount": mount,
    "/VolumeDriver.Unmount": unmount,
    "/VolumeDriver.Remove": remove,
    "/VolumeDriver.Path": lambda request: {"Mountpoint": volumes[request.get("Name")]["folder"]},
    "/VolumeDriver.Get": lambda request: {"Volume": shown(request.get("Name"))},
    "/VolumeDriver.List": lambda request: {"Volumes": [shown(name) for name in volumes]},
}


def create_new(request):
    if request["Opts"].get("colour") and request["Name"] in volumes:
        raise FileExistsError("exists")
    return create(request)


def remove_unused(request):
    if volumes[request["Name"]]["holders"]:
        raise RuntimeError("volume is in use")
    return remove(request)


WORSE = {
    "/VolumeDriver.Capabilities": lambda request: {"Capabilities": {"Scope": "planet"}},
    "/VolumeDriver.Create": create_new,
    "/VolumeDriver.Remove": remove_unused,
    "/VolumeDriver.Path": lambda request: {"Mountpoint": ""},
    "/VolumeDriver.Get": lambda request: {
        "Volume": shown(request["Name"]) if request["Name"] in volumes else {"Name": request["Name"]},
        "Err": "" if request["Name"] in volumes else "no such volume",
    },
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if worse and "Content-Type" in self.headers:
            self.send_error(415)
            return
        try:
            with lock:
                answer = VERBS.get(self.path, lambda request: {})(json.loads(body or b"{}"))
        except Exception as error:  # noqa: BLE001 - one more mistake
            if worse and isinstance(error, KeyError):
                self.send_error(500)
                return
            answer = {"Err": str(error)}
        self.send_response(200)
        encoded = json.dumps({"Err": "", **answer}).encode()
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def address_string(self):
        return "engine"

    def log_message(self, *words):
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


if worse:
    VERBS |= WORSE
    shutil.rmtree(os.path.join(state, "volumes"), ignore_errors=True)
if os.path.exists(socket):
    os.unlink(socket)
Server(socket, Handler).serve_forever()

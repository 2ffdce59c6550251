"""Tells what a process of this image finds; on a port when one is given, else on its standard output."""

import http.server
import json
import os
import signal
import sys


def found():
    with open("/proc/self/environ", "rb") as f:
        begin = f.read().decode().split("\0")
    with open("/proc/self/cmdline", "rb") as f:
        command = f.read().decode().split("\0")
    umask = os.umask(0)
    os.umask(umask)
    ignored = [
        s.name for s in signal.valid_signals() if getattr(signal.getsignal(s), "name", "") == "SIG_IGN"
    ]
    return {
        "environ": dict(os.environ),
        "begin": dict(line.split("=", 1) for line in begin if "=" in line),
        "path": sys.path,
        "argv": sys.argv,
        "orig_argv": sys.orig_argv,
        "command": command,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "flags": str(sys.flags),
        "cwd": os.getcwd(),
        "umask": umask,
        "ignored": sorted(ignored),
        "modules": sorted(m for m in sys.modules if "overlay" in m),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({**found(), "headers": sorted(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__" and len(sys.argv) == 2 and sys.argv[1].isdigit():
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
else:
    print("PROBE" + json.dumps(found()) + "PROBE")

"""A web server with a health endpoint: what the demo deploys."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "v1"
HEALTH = 200


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(HEALTH, "well\n" if HEALTH == 200 else "the database is on fire\n")
        else:
            self.answer(200, f"{VERSION} from {socket.gethostname()}\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The demo asks many times a second, and nobody would read that."""


print(f"hello {VERSION} starts", flush=True)
ThreadingHTTPServer(("", int(os.environ["PORT"])), Hello).serve_forever()

"""What the bench deploys: it answers with the version that lies beside it, and is unwell where that ends in -bad."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = Path(__file__).with_name("VERSION").read_text().strip()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if VERSION.endswith("-bad") else 200)
        self.send_header("Content-Length", str(len(VERSION)))
        self.end_headers()
        self.wfile.write(VERSION.encode())

    def log_message(self, *_):
        """Nobody reads a line for each question."""


ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()

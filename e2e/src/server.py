"""What end-to-end tests deploy: it says its version, and whether it is well."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "@VERSION@"
STATUS = @STATUS@
# It is well only where this file exists; everywhere where this is empty.
NEEDS = "@NEEDS@"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        well = STATUS == 200 and (not NEEDS or os.path.exists(NEEDS))
        if self.path == "/health":
            self.answer(200 if well else 503, "well" if well else f"{VERSION} is not well")
        else:
            self.answer(200, VERSION)

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Tests count the lines that say which version started, and want no others."""


print(f"started {VERSION}", flush=True)
ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()

"""Runs moto's server; of what is asked of its S3, it does one thing after the other.

moto looks at a condition and stores in two steps, with a thread for each request: of two conditional writes at once both could succeed, which S3 does
not do, or one meets what the other has just closed, and answers with 500. The body of a request was read before, so a slow client keeps nobody waiting.
"""

import functools
import threading

from moto.s3.responses import S3Response
from moto.server import main

TURN = threading.RLock()


def in_turn(method):
    @functools.wraps(method)
    def wait_and_do(*arguments, **named):
        with TURN:
            return method(*arguments, **named)

    return wait_and_do


for name in ("_bucket_response", "_key_response"):
    setattr(S3Response, name, in_turn(getattr(S3Response, name)))

main()

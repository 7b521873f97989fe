"""A server that speaks S3, moto's, as a program of its own: `python tests/s3_server.py PORT` (0 takes a free one).

Says its port on a line of standard output and serves until its standard input ends: with whoever started it, however that
one ends. What it holds is in memory.
"""

import sys

from moto.server import ThreadedMotoServer


def main(port: int) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201 that is how it answers
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))

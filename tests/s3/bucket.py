#!/usr/bin/env python3
"""An S3-compatible object store in memory with one bucket; ends with its standard input.

    python bucket.py BUCKET

Needs `moto[server]` from PyPI. Prints the address it answers at once the bucket is there. Requests are served one at a
time: moto looks whether an object is there and stores it in two steps, which a real object store does in one.
"""
import logging
import os
import sys
import threading

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

ONE_AT_A_TIME = threading.Lock()
ANSWER = DomainDispatcherApplication.__call__


def answer(self, environ, start_response):
    with ONE_AT_A_TIME:
        return ANSWER(self, environ, start_response)


def main():
    DomainDispatcherApplication.__call__ = answer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                          aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket=sys.argv[1])
    print(endpoint, flush=True)
    sys.stdin.read()
    os._exit(0)  # nothing is worth waiting for: all of it is in memory


if __name__ == "__main__":
    main()

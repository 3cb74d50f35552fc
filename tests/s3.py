"""A private S3 server (moto's), with one bucket, on a free port of the loopback interface; it keeps all in memory."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_node import free_ports
from tests.waiting import eventually

BUCKET = "spool"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "wetread",
    "AWS_SECRET_ACCESS_KEY": "of no use elsewhere",
    "AWS_REGION": "us-east-1",
}


def without_credentials(home: Path) -> dict[str, str]:
    """An environment that does not say who we are: no variables, no profile, no role of the machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**environment, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class S3:
    """A running server; ``environment`` is that of nodes that may use it."""

    port: int
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def listing(self) -> list[str]:
        """The keys of all that is in the bucket, of at most a thousand."""
        answer = self._client.list_objects_v2(Bucket=BUCKET)
        assert not answer["IsTruncated"]
        return [each["Key"] for each in answer.get("Contents", [])]

    def content(self, key: str) -> bytes:
        """What is under a key."""
        return bytes(self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    @property
    def _client(self) -> Any:
        import boto3  # comes with moto

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=CREDENTIALS["AWS_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )


@contextmanager
def s3_server(folder: Path, check_who: bool = False) -> Iterator[S3]:
    """Run a server.

    Parameters
    ----------
    folder
        Where its log goes.
    check_who
        Whether it knows nobody, once it has its bucket.
    """
    pytest.importorskip("s3fs", reason="needs s3fs (the extra wetread[s3])")
    pytest.importorskip("moto.server", reason="needs moto (the extra wetread[test])")
    (port,) = free_ports(1)
    environment = {**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "1"} if check_who else {})}
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
    try:
        server = S3(port, {**without_credentials(folder), **CREDENTIALS})

        def has_a_bucket() -> bool:
            assert process.poll() is None, (folder / "s3.log").read_text()
            try:
                return httpx.put(f"{server.url}/{BUCKET}").status_code == 200
            except httpx.TransportError:
                return False

        eventually(has_a_bucket, "the S3 server has a bucket")
        yield server
    finally:
        process.kill()
        process.wait()

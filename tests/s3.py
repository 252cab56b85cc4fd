"""A real S3 server on this machine, for the tests of the stage store."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

SECRET = "Zq7secret"  # noqa: S105 - the server takes any


@contextmanager
def s3_server(bucket: str = "bucket") -> Iterator[str]:
    """Serve an empty bucket, with its address and credentials in the environment, where the driver looks for them; and
    give the URI of the bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": f"{SECRET}-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield f"s3://{bucket}/stages"
    finally:
        server.stop()

"""The faulty proxy by a real S3 client in front of a real store: it hides nothing, and it fails as often as told."""

import time
from collections.abc import Iterator

import boto3
import httpx
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from tests.cluster.proxy import Faults, FaultyProxy
from tests.cluster.services import free_port

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = FaultyProxy(f"http://{host}:{port}")
    yield proxy
    proxy.stop()
    server.stop()


def test_objects_arrive_whole_with_and_without_faults(proxy: FaultyProxy) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=proxy.url,
        aws_access_key_id="a",
        aws_secret_access_key="b",
        region_name="us-east-1",
        config=Config(retries={"max_attempts": 5, "mode": "standard"}),
    )
    client.create_bucket(Bucket="files")
    for faults in (Faults(), Faults(errors_every=3, drops_every=5)):
        proxy.faults = faults
        for name in ("plain", "with spaces + signs/ü.bin"):
            client.put_object(Bucket="files", Key=name, Body=CONTENT)
            assert client.head_object(Bucket="files", Key=name)["ContentLength"] == len(CONTENT)
            assert client.get_object(Bucket="files", Key=name)["Body"].read() == CONTENT
    assert proxy.served["error"] > 0
    assert proxy.served["dropped"] > 0


def test_it_fails_as_often_as_it_is_told(proxy: FaultyProxy) -> None:
    proxy.faults = Faults(errors_every=2)
    assert [httpx.get(f"{proxy.url}/moto-api/").status_code for _ in range(4)] == [200, 503, 200, 503]
    proxy.faults = Faults(drops_every=1)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{proxy.url}/moto-api/")
    proxy.faults = Faults(slow_every=1, delay=0.2)
    began = time.monotonic()
    assert httpx.get(f"{proxy.url}/moto-api/").status_code == 200
    assert time.monotonic() - began >= 0.2

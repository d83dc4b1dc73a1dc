"""The gateway as its clients, and its enemies, meet it: the real nginx under the rendered configuration."""

from __future__ import annotations

import datetime as dt
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from infra.components.gateway import gateway_config
from infra.gateway.nginx import SECURITY_HEADERS, Upstream, render
from ops.local.certificates import issue_certificates

Run = Callable[..., Any]
Serve = Callable[..., Any]


def strategic(*servers: str, server_name: str = "service.internal") -> tuple[Upstream, ...]:
    return (Upstream("strategic", "/api/strategic", servers, server_name),)


def address(server: Any) -> str:
    return f"127.0.0.1:{server.server_port}"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_safe(response: httpx.Response) -> None:
    for name, value in SECURITY_HEADERS.items():
        assert response.headers.get_list(name) == [value], f"{name} of {response.status_code} {response.url}"
    assert len(response.headers["X-Request-ID"]) >= 8
    assert "/" not in response.headers["Server"]


@pytest.mark.parametrize("service", ["strategic", "tactical"])
def test_each_api_is_reached_over_verified_tls(gateway: Any, service: str) -> None:
    with gateway.client() as client:
        response = client.post(f"/api/{service}/process?x=1", content=b"{}")
    assert response.status_code == 200
    assert response.json()["path"] == f"/api/{service}/process?x=1"
    assert_safe(response)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(gateway: Any, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("localhost", gateway.config.https_port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_tls_is_spoken_with_forward_secrecy(gateway: Any, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(gateway.certificates.ca))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("localhost", gateway.config.https_port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        cipher = tls.cipher()
        assert cipher is not None
        assert cipher[0].startswith(("ECDHE-", "TLS_"))


def test_a_weak_cipher_finds_no_partner(gateway: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:AES256-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")
    with socket.create_connection(("localhost", gateway.config.https_port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_plain_http_is_sent_to_https(gateway: Any) -> None:
    response = httpx.get(f"{gateway.plain_url}/api/strategic/decisions?limit=5", trust_env=False)
    assert response.status_code == 301
    assert response.headers["Location"] == "https://localhost/api/strategic/decisions?limit=5"
    assert_safe(response)


def test_plain_http_on_the_tls_port_is_sent_to_https(gateway: Any) -> None:
    response = httpx.get(f"http://localhost:{gateway.config.https_port}/api/strategic/x", trust_env=False)
    assert response.status_code == 301
    assert response.headers["Location"].startswith("https://localhost")


def test_unknown_paths_answer_a_problem_with_every_header(gateway: Any) -> None:
    with gateway.client() as client:
        response = client.get("/wp-login.php")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == 404
    assert_safe(response)


def test_health_and_readiness_answer_by_themselves(gateway: Any) -> None:
    with gateway.client() as client:
        assert client.get("/health").json() == {"status": "alive"}
        ready = client.get("/ready")
    assert ready.json() == {"status": "ready"}
    assert_safe(ready)


def test_metrics_are_not_to_be_had_at_the_public_door(gateway: Any) -> None:
    with gateway.client() as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/api/../metrics").status_code == 404
    assert httpx.get(f"{gateway.plain_url}/metrics", trust_env=False).status_code == 301


def test_metrics_are_read_inside(gateway: Any) -> None:
    context = ssl.create_default_context(cafile=str(gateway.certificates.ca))
    with httpx.Client(verify=context, trust_env=False) as client:
        text = client.get(f"{gateway.private_url}/metrics").text
    series = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert series["nginx_up"] == "1"
    assert int(series["nginx_connections_active"]) >= 1


def test_strangers_inside_read_no_metrics(run: Run) -> None:
    closed = run(private_networks=("192.0.2.0/24",))
    context = ssl.create_default_context(cafile=str(closed.certificates.ca))
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(f"{closed.private_url}/metrics").status_code == 403


def test_a_burst_beyond_twenty_is_told_to_slow_down(run: Run, serve: Serve) -> None:
    # One a second instead of ten (the default is asserted below), so that a busy machine is fast enough for a burst.
    limited = run(upstreams=strategic(address(serve())), rate=1)
    with limited.client() as client:
        began = time.monotonic()
        answers = [client.get("/api/strategic/decisions") for _ in range(80)]
        seconds = time.monotonic() - began
    statuses = [answer.status_code for answer in answers]
    assert statuses[:21] == [200] * 21
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= len(answers) - (21 + seconds + 1)
    assert refused, f"80 requests took {seconds:.1f} s: too slow to be a burst"
    assert refused[0].headers["Content-Type"] == "application/problem+json"
    for answer in refused:
        assert_safe(answer)


def test_health_checks_are_never_limited(run: Run, serve: Serve) -> None:
    limited = run(upstreams=strategic(address(serve())))
    with limited.client() as client:
        assert {client.get("/ready").status_code for _ in range(60)} == {200}


def test_a_body_above_the_limit_is_refused_before_it_is_sent(gateway: Any) -> None:
    with gateway.client() as client:
        small = client.post("/api/strategic/process", content=b"x" * (8 << 20))
    assert small.status_code == 200
    head = (
        f"POST /api/strategic/process HTTP/1.1\r\nHost: localhost\r\nContent-Length: {(100 << 20) + 1}\r\n"
        "Expect: 100-continue\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=str(gateway.certificates.ca))
    with (
        socket.create_connection(("localhost", gateway.config.https_port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(head.encode())
        answer = tls.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413")
    for name, value in SECURITY_HEADERS.items():
        assert f"{name}: {value}" in answer


def test_a_dead_server_is_bypassed(run: Run, serve: Serve) -> None:
    alive = serve()
    gateway = run(upstreams=strategic(f"127.0.0.1:{closed_port()}", address(alive)), rate=1000, burst=1000)
    with gateway.client() as client:
        answers = [client.post("/api/strategic/process", content=b"{}") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["server"] for answer in answers} == {alive.server_port}


def test_the_least_busy_server_gets_the_next_request(gateway: Any) -> None:
    with gateway.client() as client, ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(client.get, "/api/strategic/slow") for _ in range(8)]
        servers = [future.result(timeout=10).json()["server"] for future in slow]
    first, second = (servers.count(server) for server in sorted(set(servers)))
    assert (first, second) == (4, 4)


def test_no_server_at_all_is_a_problem_with_every_header(run: Run) -> None:
    gateway = run(upstreams=strategic(f"127.0.0.1:{closed_port()}"))
    with gateway.client() as client:
        response = client.get("/api/strategic/decisions")
    assert response.status_code == 502
    assert response.headers["Content-Type"] == "application/problem+json"
    assert_safe(response)


def test_an_impostor_behind_the_gateway_is_not_spoken_to(run: Run, serve: Serve, tmp_path: Path) -> None:
    impostor = serve(issue_certificates(tmp_path / "other", names=("service.internal",)))
    gateway = run(upstreams=strategic(address(impostor)))
    with gateway.client() as client:
        assert client.get("/api/strategic/decisions").status_code == 502


def test_a_certificate_with_another_name_is_not_trusted(run: Run, serve: Serve) -> None:
    gateway = run(upstreams=strategic(address(serve()), server_name="somebody.else"))
    with gateway.client() as client:
        assert client.get("/api/strategic/decisions").status_code == 502


def test_a_request_id_is_passed_on_and_back(gateway: Any) -> None:
    with gateway.client() as client:
        response = client.get("/api/strategic/x", headers={"X-Request-ID": "order-4711-abc"})
    assert response.headers["X-Request-ID"] == "order-4711-abc"
    assert response.json()["headers"]["X-Request-ID"] == "order-4711-abc"


@pytest.mark.parametrize("forged", ["short", 'a"b<script>alert(1)', "x" * 200])
def test_what_is_no_request_id_is_replaced(gateway: Any, forged: str) -> None:
    with gateway.client() as client:
        response = client.get("/api/strategic/x", headers={"X-Request-ID": forged})
    assert response.headers["X-Request-ID"] == response.json()["headers"]["X-Request-ID"] != forged


def test_a_client_cannot_claim_another_address(gateway: Any) -> None:
    with gateway.client() as client:
        headers = client.get("/api/strategic/x", headers={"X-Forwarded-For": "203.0.113.9"}).json()["headers"]
    assert headers["X-Forwarded-For"] == "127.0.0.1"


def test_large_answers_are_compressed(gateway: Any) -> None:
    with gateway.client() as client:
        response = client.get("/api/strategic/big", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(response.content) > 20_000
    assert_safe(response)


def test_a_renewed_certificate_is_shown_without_a_reload(run: Run, tmp_path: Path, tls_directory: Path) -> None:
    mounted = tmp_path / "mounted"
    shutil.copytree(tls_directory, mounted)
    gateway = run(tls_directory=str(mounted))
    before = shown_certificate(gateway.config.https_port)
    renewed = issue_certificates(tmp_path / "renewed", names=("localhost",))
    for source, name in ((renewed.key, "tls.key"), (renewed.certificate, "tls.crt")):
        shutil.copy(source, mounted / f"{name}.new")
        (mounted / f"{name}.new").rename(mounted / name)
    after = shown_certificate(gateway.config.https_port)
    assert after.serial_number != before.serial_number
    assert after.not_valid_after_utc > dt.datetime.now(dt.UTC)


def shown_certificate(port: int) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("localhost", port)).encode())


def test_the_log_holds_no_query_string(gateway: Any) -> None:
    with gateway.client() as client:
        client.get("/api/strategic/x?token=canary-4711")
    log = (gateway.directory / "nginx.log").read_text()
    assert '"path":"/api/strategic/x"' in log
    assert "canary-4711" not in log


def test_the_cluster_looks_pods_up_again() -> None:
    text = render(gateway_config())
    assert "server strategic.grandmodel.svc.cluster.local:8000 resolve" in text
    assert "resolver kube-dns.kube-system.svc.cluster.local" in text
    assert "proxy_ssl_name tactical.grandmodel.svc;" in text
    assert "limit_req_zone $binary_remote_addr zone=clients:16m rate=10r/s;" in text

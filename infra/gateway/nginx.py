"""The configuration of nginx in front of both services: TLS, routes, limits, headers.

Pure rendering. The same text, with other ports and addresses, runs in tests in front of real servers, and on a laptop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.contract import HEALTH_PATH, METRICS_PATH, READY_PATH

REQUESTS_PER_SECOND: Final = 10
BURST: Final = 20
BODY_LIMIT: Final = "100m"
_ONE_YEAR_SECONDS: Final = 365 * 24 * 3600

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "X-XSS-Protection": "1; mode=block",
    "Strict-Transport-Security": f"max-age={_ONE_YEAR_SECONDS}; includeSubDomains; preload",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
}
"""On every answer, errors included. The APIs answer with data, never with pages: nothing may load or frame them."""

# Mozilla's "intermediate" profile without its CBC and DHE suites; TLS 1.3 brings its own.
_CIPHERS: Final = ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
PROBLEMS: Final[Mapping[int, str]] = {
    404: "Not Found",
    413: "Content Too Large",
    429: "Too Many Requests",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
"""Answers of the gateway itself, as RFC 9457 problems; those of the services pass as they are."""


@dataclass(frozen=True)
class Upstream:
    """A service behind the gateway.

    ``servers`` are ``host:port``; ``server_name`` is the name its certificate must carry. Paths below
    ``streaming_prefix`` are answered bit by bit for up to an hour.
    """

    name: str
    api_prefix: str
    servers: Sequence[str]
    server_name: str
    streaming_prefix: str | None = None


@dataclass(frozen=True)
class GatewayConfig:
    """What differs between a cluster, a laptop and a test."""

    upstreams: Sequence[Upstream]
    tls_directory: str
    """Holds ``tls.crt``, ``tls.key`` and the services' ``ca.crt``; the first two are read at each handshake."""
    https_port: int = 8443
    http_port: int = 8080
    private_port: int = 9443
    """Listener for ``/metrics``, which the load balancer does not know."""
    private_networks: Sequence[str] = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    working_directory: str = "/tmp"  # noqa: S108 -- a volume of the pod's own
    worker_processes: int = 1
    resolver: str | None = None
    """DNS server that is asked again for the pods behind an upstream's name; None resolves once, at start.

    Asking again needs nginx 1.27.3 (``resolve`` of an upstream's ``server``).
    """
    rate: int = REQUESTS_PER_SECOND
    burst: int = BURST
    read_timeout_seconds: int = 35
    """Longer than a service's own limit of 30 s, so that its answer, not ours, tells what happened."""
    extra_main: Sequence[str] = field(default_factory=tuple)


def render(config: GatewayConfig) -> str:
    """``nginx.conf``."""
    blocks = [_main(config), "http {", _indented(_http(config)), "}"]
    return "\n".join(blocks) + "\n"


def _indented(text: str, by: str = "    ") -> str:
    return "\n".join(f"{by}{line}" if line else "" for line in text.splitlines())


def _main(config: GatewayConfig) -> str:
    return "\n".join(
        [
            f"worker_processes {config.worker_processes};",
            "worker_rlimit_nofile 65536;",
            "worker_shutdown_timeout 40s;",
            f"pid {config.working_directory}/nginx.pid;",
            "error_log /dev/stderr warn;",
            *config.extra_main,
            "",
            "events {",
            "    worker_connections 16384;",
            "    multi_accept on;",
            "}",
            "",
        ]
    )


def _http(config: GatewayConfig) -> str:
    work = config.working_directory
    return f"""\
default_type application/octet-stream;
server_tokens off;
sendfile on;
tcp_nopush on;
tcp_nodelay on;

{_temporary_paths(work)}

# No query string and no header: neither may hold a secret that ends in a log.
log_format json escape=json '{{"time":"$time_iso8601","request_id":"$accepted_request_id","client":"$remote_addr",'
    '"method":"$request_method","path":"$uri","status":$status,"bytes":$bytes_sent,"seconds":$request_time,'
    '"upstream":"$upstream_addr","upstream_seconds":"$upstream_response_time","tls":"$ssl_protocol"}}';
access_log /dev/stdout json;

# A caller may bring its own id, as long as it is one.
map $http_x_request_id $accepted_request_id {{
    default $request_id;
    "~^[A-Za-z0-9._-]{{8,128}}$" $http_x_request_id;
}}
# A variable in ssl_certificate makes nginx read the files at each handshake: a renewed certificate needs no reload.
map $server_port $tls_directory {{
    default {config.tls_directory};
}}

client_max_body_size {BODY_LIMIT};
client_body_buffer_size 1m;
client_header_timeout 10s;
client_body_timeout 30s;
send_timeout 30s;
keepalive_timeout 75s;
large_client_header_buffers 4 16k;
reset_timedout_connection on;

limit_req_zone $binary_remote_addr zone=clients:16m rate={config.rate}r/s;
limit_req_status 429;
limit_req_log_level notice;

gzip on;
gzip_vary on;
gzip_proxied any;
gzip_min_length 1024;
gzip_comp_level 5;
gzip_types application/json application/problem+json text/plain text/event-stream;

ssl_protocols TLSv1.2 TLSv1.3;
ssl_ciphers {_CIPHERS};
ssl_prefer_server_ciphers off;
ssl_session_cache shared:tls:16m;
ssl_session_timeout 1h;
ssl_session_tickets off;

{_resolver(config)}{_upstreams(config)}
{_redirect_server(config)}

{_public_server(config)}

{_private_server(config)}"""


def _temporary_paths(directory: str) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)


def _resolver(config: GatewayConfig) -> str:
    return f"resolver {config.resolver} valid=5s ipv6=off;\nresolver_timeout 5s;\n\n" if config.resolver else ""


def _upstreams(config: GatewayConfig) -> str:
    resolve = " resolve" if config.resolver else ""
    blocks = []
    for upstream in config.upstreams:
        servers = "\n".join(f"    server {s}{resolve} max_fails=2 fail_timeout=5s;" for s in upstream.servers)
        blocks.append(
            f"upstream {upstream.name} {{\n    zone {upstream.name} 256k;\n    least_conn;\n{servers}\n"
            "    keepalive 64;\n    keepalive_timeout 60s;\n}\n"
        )
    return "\n".join(blocks)


def _headers() -> str:
    """Set once for each server and nowhere below: a location with a header of its own would lose all of these."""
    headers = [*SECURITY_HEADERS.items(), ("X-Request-ID", "$accepted_request_id")]
    return "\n".join(f'add_header {name} "{value}" always;' for name, value in headers)


def _redirect_server(config: GatewayConfig) -> str:
    return f"""\
server {{
    listen {config.http_port};
    server_name _;

{_indented(_headers())}

    location / {{
        return 301 https://$host$request_uri;
    }}
}}"""


def _tls(port: int) -> str:
    return f"""\
listen {port} ssl;
server_name _;
ssl_certificate $tls_directory/tls.crt;
ssl_certificate_key $tls_directory/tls.key;"""


def _public_server(config: GatewayConfig) -> str:
    return f"""\
server {{
{_indented(_tls(config.https_port))}

{_indented(_headers())}

    # Plain HTTP on the TLS port.
    error_page 497 =301 https://$host$request_uri;
{_indented(_problem_pages())}

{_indented(_status_locations())}

{_indented(chr(10).join(_api_locations(upstream, config) for upstream in config.upstreams))}
    location / {{
        return 404;
    }}
}}"""


def _status_locations() -> str:
    """Whether the gateway itself is well. A service that is away must not take the other one's way in with it."""
    return "\n".join(
        f"""\
location = {path} {{
    access_log off;
    default_type application/json;
    return 200 '{{"status":"{status}"}}';
}}"""
        for path, status in ((HEALTH_PATH, "alive"), (READY_PATH, "ready"))
    )


def _problem_pages() -> str:
    pages = "\n".join(f"error_page {status} @problem_{status};" for status in PROBLEMS)
    locations = "\n".join(
        f"""\
location @problem_{status} {{
    default_type application/problem+json;
    return {status} '{{"type":"about:blank","title":"{title}","status":{status},"request_id":"$accepted_request_id"}}';
}}"""
        for status, title in PROBLEMS.items()
    )
    return f"{pages}\n{locations}"


def _api_locations(upstream: Upstream, config: GatewayConfig) -> str:
    """The service's routes; where something is streamed, a second location without buffers."""
    location = _api_location(f"{upstream.api_prefix}/", upstream, config.read_timeout_seconds, config)
    if upstream.streaming_prefix is None:
        return location
    streaming = _api_location(upstream.streaming_prefix, upstream, 3600, config, "proxy_buffering off;")
    return f"{location}\n{streaming}"


def _api_location(prefix: str, upstream: Upstream, read_seconds: int, config: GatewayConfig, *extra: str) -> str:
    hidden = "\n".join(f"    proxy_hide_header {name};" for name in (*SECURITY_HEADERS, "X-Request-ID", "Server"))
    lines = "".join(f"    {line}\n" for line in extra)
    return f"""\
location {prefix} {{
    limit_req zone=clients burst={config.burst} nodelay;
    proxy_pass https://{upstream.name};
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Request-ID $accepted_request_id;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 2;
    proxy_ssl_trusted_certificate {config.tls_directory}/ca.crt;
    proxy_ssl_name {upstream.server_name};
    proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_session_reuse on;
    # A request that reached a pod is never sent to a second one, unless it may be repeated (RFC 9110, 9.2.2).
    proxy_next_upstream error timeout http_503;
    proxy_next_upstream_tries 3;
    proxy_next_upstream_timeout 10s;
    proxy_connect_timeout 2s;
    proxy_send_timeout 30s;
    proxy_read_timeout {read_seconds}s;
{hidden}
{lines}}}"""


def _private_server(config: GatewayConfig) -> str:
    allowed = "\n".join(f"    allow {network};" for network in config.private_networks)
    gauges = "".join(
        f"# TYPE nginx_connections_{state} gauge\\nnginx_connections_{state} $connections_{state}\\n"
        for state in CONNECTION_STATES
    )
    return f"""\
server {{
{_indented(_tls(config.private_port))}

{allowed}
    deny all;

{_indented(_headers())}

    # "return" answers before anybody has asked who is there; "try_files" comes after "allow" and "deny".
    location = {METRICS_PATH} {{
        access_log off;
        try_files /nothing @metrics;
    }}
    location @metrics {{
        access_log off;
        default_type "text/plain; version=0.0.4";
        return 200 "# TYPE nginx_up gauge\\nnginx_up 1\\n{gauges}";
    }}
    location / {{
        return 404;
    }}
}}"""


CONNECTION_STATES: Final = ("active", "reading", "writing", "waiting")
"""States that nginx's stub_status module counts connections in."""

"""The images, built by the real engine from the wheels of their locks: small enough, unprivileged, and they serve."""

from __future__ import annotations

import json
import secrets
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from app import __version__
from app.contract import STRATEGIC, TACTICAL, Env, Service, ServiceContract
from app.service.permissions import Role
from app.service.tokens import mint_token
from ops.images import sbom
from ops.local.certificates import issue_certificates
from ops.local.process import free_port
from tests.images.conftest import CANARY, ROOT, Built, Docker, ask_for_work, client, let_containers_read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECRET = secrets.token_urlsafe(48)
SIZE_LIMIT_MIB = {Service.STRATEGIC: 650, Service.TACTICAL: 1300}


@pytest.fixture(params=[STRATEGIC, TACTICAL], ids=["strategic", "tactical"], scope="module")
def contract(request: pytest.FixtureRequest) -> ServiceContract:
    value: ServiceContract = request.param
    return value


@pytest.fixture(scope="module")
def image(contract: ServiceContract, images: Callable[[Service], Built]) -> Built:
    return images(contract.service)


def python(docker: Docker, image: Built, program: str) -> str:
    """What a program prints inside an image, as unprivileged as a service runs."""
    unprivileged = ["--read-only", "--cap-drop=ALL", "--network=none", "--tmpfs=/tmp:size=256m,mode=1777"]
    return docker("run", "--rm", *unprivileged, "--entrypoint=python", image.reference, "-c", program)


@pytest.fixture
def running(
    contract: ServiceContract,
    image: Built,
    docker: Docker,
    request: pytest.FixtureRequest,
    cache: str,
    tmp_path: Path,
) -> Iterator[tuple[str, str, Path]]:
    """The image as Kubernetes runs it: read-only root, no capability, no privilege to gain; gives id, URL and CA."""
    database = request.getfixturevalue(f"{contract.service}_database")
    certificates = issue_certificates(tmp_path / "tls")
    for file in (tmp_path / "tls").iterdir():
        file.chmod(0o644)
    let_containers_read(tmp_path / "tls")
    port = free_port()
    variables = {
        Env.ENVIRONMENT: "development",
        Env.DATABASE_URL: database,
        Env.REDIS_URL: cache,
        Env.JWT_SECRET: SECRET,
        Env.SSL_ENABLED: "true",
        Env.SSL_CERT_PATH: "/tls/server.pem",
        Env.SSL_KEY_PATH: "/tls/server.key",
        Env.MODEL_STORE_URL: "file:///models",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": "1",
    }
    container = docker(
        "run",
        "--detach",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--network=host",
        f"--health-cmd=python -m app.service.healthcheck {port}",  # the image's own, on the port that is free here
        "--health-interval=1s",
        "--tmpfs=/tmp:size=256m,mode=1777",
        "--tmpfs=/models:size=64m,uid=10001,gid=10001",
        f"--volume={tmp_path / 'tls'}:/tls:ro",
        *(f"--env={name}={value}" for name, value in variables.items()),
        image.reference,
    ).strip()
    try:
        yield container, f"https://localhost:{port}", certificates.ca
    finally:
        docker("rm", "--force", container)


def is_ready(url: str, ca: Path) -> bool:
    try:
        with client(url, ca) as http:
            return http.get("/ready").status_code == 200
    except httpx.HTTPError:
        return False


def state(docker: Docker, container: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(docker("inspect", container))[0]["State"]
    return description


def test_a_container_without_any_privilege_becomes_ready_works_and_stops_gracefully(
    contract: ServiceContract, docker: Docker, running: tuple[str, str, Path]
) -> None:
    container, url, ca = running

    deadline = time.monotonic() + 120
    while not (is_ready(url, ca) and state(docker, container)["Health"]["Status"] == "healthy"):
        assert state(docker, container)["Running"], docker("logs", container)
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.5)
    with client(url, ca, mint_token(SECRET, subject="image", roles=[Role.ADMIN])) as http:
        assert ask_for_work(contract.service, http)
    with pytest.raises(AssertionError, match="Read-only file system"):
        docker("exec", container, "touch", "/opt/grandmodel/x")
    assert docker("exec", container, "id", "-u").strip() == "10001"
    granted = docker("exec", container, "grep", "^Cap", "/proc/1/status").split()[1::2]
    assert set(granted) == {"0" * 16}
    docker("stop", "--time", "30", container)
    assert state(docker, container)["ExitCode"] == 0


def test_an_image_says_what_it_is_and_how_it_feels(contract: ServiceContract, image: Built, docker: Docker) -> None:
    configuration = json.loads(docker("inspect", image.reference))[0]["Config"]
    assert configuration["User"] == "10001:10001"
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.title"] == f"grandmodel {contract.service}"
    assert labels["org.opencontainers.image.base.name"] == "grandmodel-base:test"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels[sbom.LABEL] == sbom.PATH
    assert configuration["Healthcheck"]["Test"][-1] == str(contract.port)
    assert set(configuration["ExposedPorts"]) == {f"{contract.port}/tcp"}
    assert "@sha256:" in image.reference
    program = "import ssl; ssl.create_default_context(cafile='/etc/ssl/rds/global-bundle.pem')"
    python(docker, image, program)


def test_memory_is_tuned_in_the_process_that_serves(image: Built, docker: Docker) -> None:
    """glibc takes its settings from the environment of its own process and from nowhere else."""
    program = "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('MALLOC')}))"
    assert json.loads(python(docker, image, program)) == {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "134217728",
    }


def test_an_image_does_not_grow_unnoticed(contract: ServiceContract, image: Built) -> None:
    assert image.size_mib < SIZE_LIMIT_MIB[contract.service]


def test_the_jobs_of_the_cluster_run_in_the_strategic_image(images: Callable[[Service], Built], docker: Docker) -> None:
    """Dumps and upkeep need programs and modules that no service loads; what needs a cluster says so in one line."""
    image = images(Service.STRATEGIC)
    program = (
        "import subprocess, sys, ops.backup, ops.maintain, ops.storage, boto3; from ops.backup import _find\n"
        "for name in ('pg_dump', 'pg_restore'): print(subprocess.check_output([_find(name), '--version'], text=True))\n"
        "[boto3.client(name, region_name='eu-west-1') for name in ('s3', 'sns', 'rds', 'sts')]\n"
        "command = [sys.executable, '-m', 'ops', 'rollback', 'strategic']\n"
        "refused = subprocess.run(command, capture_output=True, text=True)\n"
        "print(refused.returncode, refused.stderr)"
    )
    printed = python(docker, image, program)
    assert "pg_dump (PostgreSQL)" in printed
    assert "pg_restore (PostgreSQL)" in printed
    assert "2 error: this command needs kubernetes: pip install 'grandmodel[ops]'\n" in printed


def test_the_slimmed_engine_still_reproduces_its_recorded_answers(
    images: Callable[[Service], Built], docker: Docker
) -> None:
    """With OpenVINO: without its plugin the engine would fall back to NumPy, correct and slow, and nobody would see."""
    program = (
        "import json; from app.strategic.engine import Engine; from app.strategic.runtime import TOLERANCE\n"
        "engine = Engine.load()\n"
        "print(json.dumps([sorted(engine.runtime.samples_per_second), engine.check() <= TOLERANCE]))"
    )
    candidates, reproduces = json.loads(python(docker, images(Service.STRATEGIC), program).splitlines()[-1])
    assert "openvino-float32" in candidates
    assert reproduces


def test_the_slimmed_tactical_image_still_reads_files_of_bars(
    images: Callable[[Service], Built], docker: Docker
) -> None:
    """Trainings on files are run in it; the strategic image does without, and says so."""
    program = (
        "import subprocess, sys; from app.market.files import read_bars\n"
        "for name in ('/tmp/bars.parquet', '/tmp/bars.csv'):\n"
        "    subprocess.check_call([sys.executable, '-m', 'app.tactical', 'simulate', name, '--bars', '500'])\n"
        "    print('read', len(read_bars(name).time))"
    )
    assert python(docker, images(Service.TACTICAL), program).count("read 500\n") == 2


def test_an_image_lists_exactly_what_is_in_it(contract: ServiceContract, image: Built, docker: Docker) -> None:
    bill = python(docker, image, f"print(open({sbom.PATH!r}).read())")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    document = json.loads(bill)
    assert document["metadata"]["component"]["name"] == f"grandmodel/{contract.service}"
    assert document["metadata"]["component"]["version"] == __version__
    listed: dict[str, dict[str, Any]] = {component["purl"]: component for component in document["components"]}

    inside = (
        "import json, platform; from importlib.metadata import distributions\n"
        "from ops.images.sbom import normalised\n"
        "found = [(normalised(d.name), d.version) for d in distributions()]\n"
        "print(json.dumps([platform.python_version(), found]))"
    )
    version, installed = json.loads(python(docker, image, inside))
    query = ["--entrypoint=dpkg-query", image.reference, "-f", "${Package} ${Version} ${Architecture}\n", "-W"]
    debian = [line.split() for line in docker("run", "--rm", "--network=none", *query).splitlines()]

    lock = sbom.read_lock((ROOT / f"app/{contract.service}/requirements-cpu.lock").read_text(encoding="utf-8"))
    python_listed = {(c["name"], c["version"]) for purl, c in listed.items() if purl.startswith("pkg:pypi/")}
    assert python_listed == {tuple(each) for each in installed}
    assert {name for name, _ in python_listed} == lock.keys() - {"pip"}
    for component in document["components"]:
        if component["purl"].startswith("pkg:pypi/"):
            assert component["hashes"] == [{"alg": "SHA-256", "content": lock[component["name"]][1]}]
    debian_listed = {(c["name"], c["version"]) for purl, c in listed.items() if purl.startswith("pkg:deb/")}
    assert debian_listed == {(name, version) for name, version, _ in debian}
    assert len(debian_listed) > 50
    assert f"pkg:generic/python@{version}" in listed


def test_building_twice_gives_the_same_layers(
    contract: ServiceContract, image: Built, build: Callable[..., str], docker: Docker
) -> None:
    """From nothing: no cache, and sources that look newer, as a fresh clone's do."""
    for source in (ROOT / "app" / "contract.py", ROOT / "ops" / "images" / "slim.py"):
        source.touch()
    again = build(contract.service, f"again/{contract.service}", "--no-cache")
    layers = json.loads(docker("inspect", again))[0]["RootFS"]["Layers"]
    assert tuple(layers) == image.layers
    docker("rmi", "--force", again)


def test_no_layer_holds_a_secret(contract: ServiceContract, image: Built, docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), image.reference)
    names: list[str] = []
    with tarfile.open(archive) as layers:
        for member in layers.getmembers():
            stream = layers.extractfile(member)
            if stream is None:
                continue
            if not member.name.endswith("layer.tar"):
                assert CANARY.encode() not in stream.read()
                continue
            with tarfile.open(fileobj=stream) as layer:
                for entry in layer:
                    names.append(entry.name)
                    content = layer.extractfile(entry) if entry.isfile() and entry.size < 1 << 20 else None
                    assert content is None or CANARY.encode() not in content.read(), entry.name
    ours = [name for name in names if name.startswith("opt/grandmodel/src")]
    assert f"opt/grandmodel/src/app/{contract.service}/main.py" in ours
    assert not [name for name in ours if {"tests", ".git", "build"} & set(name.split("/"))]
    assert not [name for name in names if name.endswith((".key", ".env")) and name.startswith("opt/grandmodel")]
    assert CANARY not in docker("history", "--no-trunc", image.reference)

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deploy import image, local_env, render
from deploy.parts import NOT_IN_COMPOSE
from servicekit import parts
from servicekit.rpc.server import DRAIN_LIMIT_SECONDS
from tests.contract.test_environment import NAMES, variables
from tests.support.contract import PART_SETTINGS, ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())


def closure(roots: set[str]) -> set[str]:
    """What the installed distributions say that they need, from the roots on."""
    project = [Requirement(text) for text in metadata.requires("concerto") or ()]
    wanted = {(item.name.lower(), frozenset(item.extras)) for item in project if item.name.lower() in roots}
    wanted |= {(name, frozenset()) for name in roots}
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            marks = [{"extra": extra} for extra in (*extras, "")]
            if needed.marker is None or any(needed.marker.evaluate(mark) for mark in marks):
                wanted.add((re.sub(r"[-_.]+", "-", needed.name).lower(), frozenset(needed.extras)))
    return {name for name, _ in seen}


@pytest.mark.parametrize("service", image.SERVICES)
def test_an_image_installs_all_that_its_process_needs(service: str) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    chosen = set(re.findall(r"^([a-z0-9.-]+)==", image.subset(lock, image.wanted_by(service)), flags=re.MULTILINE))
    assert closure(image.wanted_by(service)) - chosen == set()


@pytest.mark.parametrize("service", image.SERVICES)
def test_what_an_image_loads_needs_no_package_that_it_lacks(service: str) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    chosen = set(re.findall(r"^([a-z0-9.-]+)==", image.subset(lock, image.wanted_by(service)), flags=re.MULTILINE))
    absent = {
        module: None
        for module, names in metadata.packages_distributions().items()
        if not chosen & {re.sub(r"[-_.]+", "-", name).lower() for name in names} and names != ["concerto"]
    }
    # What stands there as None cannot be imported.
    code = f"import sys\nsys.modules.update({absent!r})\n"
    code += "\n".join(f"import {module}" for module in image.SERVICES[service].modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("part", parts.PARTS, ids=lambda part: part.name)
def test_an_image_installs_nothing_that_only_other_parts_need(part: parts.Part) -> None:
    own = closure(image.wanted_by(part.name))
    lock = (ROOT / "requirements.lock").read_text()
    chosen = set(re.findall(r"^([a-z0-9.-]+)==", image.subset(lock, image.wanted_by(part.name)), flags=re.MULTILINE))
    foreign = set().union(*(image.wanted_by(other.name) for other in parts.PARTS)) - own
    assert foreign
    assert chosen & foreign == set()


@pytest.mark.parametrize(
    ("service", "foreign"),
    [
        ("auth", "langchain"),
        ("sessions", "starlette"),
        ("gateway", "supabase"),
        ("gateway", "fastapi"),
        ("supabase", "grpcio"),
    ],
)
def test_an_image_installs_nothing_of_the_others(service: str, foreign: str) -> None:
    chosen = image.subset((ROOT / "requirements.lock").read_text(), image.wanted_by(service))
    assert f"\n{foreign}==" not in f"\n{chosen}"
    for tool in ("pytest", "mypy", "uv", "playwright", "grpcio-tools"):
        assert f"\n{tool}==" not in f"\n{chosen}"
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[a-z0-9])", chosen, flags=re.MULTILINE) if entry)


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(image.ImageError, match="does not hold left-pad"):
        image.subset((ROOT / "requirements.lock").read_text(), {"left-pad"})


def test_a_service_that_does_not_exist_is_refused() -> None:
    with pytest.raises(image.ImageError, match="SERVICE is 'seshions'"):
        image.wanted_by("seshions")


def test_a_build_sees_no_settings_and_no_data() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith(("#", "!"))) == "*"
    assert not [line for line in lines if line.startswith(("!.env", "!.concerto", "!.git", "!build"))]


def compose_variables(service: str) -> dict[str, str | None]:
    found: dict[str, str | None] = COMPOSE["services"][service]["environment"]
    return found


@pytest.mark.parametrize("service", PART_SETTINGS)
def test_a_container_is_told_its_own_settings_and_no_others(service: str) -> None:
    variables_given = set(compose_variables(service))
    read = variables(PART_SETTINGS[service])
    assert variables_given - read == set(), "the process does not read these"
    own = re.compile(rf"{service.upper()}_(HOST|PORT)")  # set in the image
    missing = {name for name in read - variables_given if not own.fullmatch(name)}
    # The REST way is not for containers: they have SUPABASE_DB_URL.
    assert missing - set(NOT_IN_COMPOSE) - {"SUPABASE_PUBLISHABLE_KEY", "SUPABASE_PUBLIC_URL"} == set()


@pytest.mark.parametrize("part", parts.PARTS, ids=lambda part: part.name)
def test_a_container_is_built_limited_checked_and_started_as_the_registry_says(part: parts.Part) -> None:
    container = COMPOSE["services"][part.name]
    assert container["build"]["args"] == {"SERVICE": part.name}
    assert container["mem_limit"] == f"{part.memory_limit_mib}m"
    assert f"127.0.0.1:{part.port}" in container["healthcheck"]["test"][-1]
    variables_given = compose_variables(part.name)
    assert variables_given["CONCERTO_METRICS_PORT"] == str(parts.METRICS_PORT)
    assert {name: variables_given[name] for name in variables_given if name.endswith("_TARGET")} == {
        called.target_variable: f"dns:///{called.name}:{called.port}" for called in map(parts.named, part.calls)
    }
    assert set(part.calls) <= container.get("depends_on", {}).keys()
    assert ("SUPABASE_DB_URL" in variables_given) == (part.database is not None)


@pytest.mark.parametrize("part", parts.PARTS, ids=lambda part: part.name)
def test_an_image_listens_and_is_checked_at_the_registrys_port(part: parts.Part) -> None:
    text = (ROOT / "Dockerfile").read_text()
    stage = re.search(rf"^FROM runtime AS {part.name}\n(.*?)(?=^FROM |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert stage is not None, "run `make parts`"
    assert f"ENV {part.variable}_HOST=0.0.0.0 {part.variable}_PORT={part.port}\n" in stage[1]
    assert f"EXPOSE {part.port} {parts.METRICS_PORT}\n" in stage[1]
    assert f"127.0.0.1:{part.port}" in stage[1]
    assert f'\nCMD ["python", "-m", "{part.module}"]\n' in stage[1]


def test_every_variable_of_the_compose_file_is_explained() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    names = set(re.findall(r"\$\{([A-Z_]+)", text)) | {
        name for service in (*PART_SETTINGS, "supabase") for name in compose_variables(service)
    }
    assert names - NAMES == set(), "add them to .env.example"


def test_what_must_be_set_says_so() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = dict(re.findall(r"\$\{([A-Z_]+):\?([^}]+)\}", text))
    assert required.keys() == {
        "SUPABASE_URL",
        "SUPABASE_DB_URL",
        "SUPABASE_PUBLISHABLE_KEY",
        "GATEWAY_COOKIE_SECRET",
        "CONCERTO_SERVICE_KEY",
    }
    assert [name for name, message in required.items() if name not in message] == []


def test_containers_are_as_closed_as_they_can_be() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        assert "privileged" not in service, name
        for port in service.get("ports", []):
            assert re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1:\d+\}:\d+", port), name
    assert {name for name, service in COMPOSE["services"].items() if "ports" in service} == {
        "gateway",
        "supabase",
        "grafana",
    }


def test_every_foreign_image_is_pinned() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    assert images
    assert [each for each in images if not re.search(r":v?\d+\.\d+\.\d+$", each)] == []
    stages = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert {stage for stage in stages if ":" in stage} == {"python:3.13-slim", "node:24-slim"}


def test_the_compose_file_mounts_what_exists() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source


def test_the_keys_for_this_machine_are_new_each_time_and_fit_each_other(tmp_path: Path) -> None:
    texts = [local_env.text() for _ in range(2)]
    first, second = (
        dict(line.split("=", 1) for line in text.splitlines() if not line.startswith("#")) for text in texts
    )
    made = ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWT_SECRET", "SUPABASE_DB_URL", "GATEWAY_COOKIE_SECRET")
    for name in (*made, "CONCERTO_SERVICE_KEY"):
        assert first[name] != second[name]
    assert first["CONCERTO_EMBEDDED_LOGIN_PASSWORD"] in first["SUPABASE_DB_URL"]
    program = [sys.executable, str(ROOT / "deploy" / "local_env.py"), str(tmp_path / ".env")]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 0
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / ".env").read_text()
    again = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (again.returncode, (tmp_path / ".env").read_text()) == (1, before)
    assert "is there already" in again.stderr


# Kubernetes


@pytest.fixture(scope="module", params=["base", *OVERLAYS])
def manifests(request: pytest.FixtureRequest) -> list[render.Manifest]:
    folder = KUBERNETES / "base" if request.param == "base" else KUBERNETES / "overlays" / request.param
    return render.render(folder)


def of_kind(manifests: list[render.Manifest], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def variables_given(manifests: list[render.Manifest], container: dict[str, Any]) -> dict[str, str]:
    """The variables that a container gets from ConfigMaps."""
    maps = of_kind(manifests, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]["data"]
    return found


def test_no_secret_has_a_value_in_the_repository(manifests: list[render.Manifest]) -> None:
    assert of_kind(manifests, "Secret") == {}
    for container in render.containers(manifests):
        assert all("valueFrom" in entry for entry in container["env"])
        assert not [
            name for name in variables_given(manifests, container) if re.search(r"KEY$|SECRET|PASSWORD|DB_URL", name)
        ]


def test_each_process_reads_what_it_is_told(manifests: list[render.Manifest]) -> None:
    pools = {"CONCERTO_DB_POOL_SIZE", "CONCERTO_DB_STATEMENT_CACHE_SIZE"}  # of those that have a database
    for container in render.containers(manifests):
        names = set(variables_given(manifests, container)) | {entry["name"] for entry in container["env"]}
        assert names - variables(PART_SETTINGS[container["name"]]) - pools == set(), container["name"]


def test_each_pod_is_fit_for_a_restricted_namespace(manifests: list[render.Manifest]) -> None:
    for name, deployment in of_kind(manifests, "Deployment").items():
        pod = pod_of(deployment)
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, "GATEWAY_PORT of a Service would be read as a setting"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_a_pod_has_the_time_to_drain(manifests: list[render.Manifest]) -> None:
    for name, deployment in of_kind(manifests, "Deployment").items():
        pod = pod_of(deployment)
        config = variables_given(manifests, pod["containers"][0])
        needed = float(config["CONCERTO_DRAIN_DELAY_SECONDS"]) + float(config["CONCERTO_DRAIN_SECONDS"])
        assert pod["terminationGracePeriodSeconds"] > needed + DRAIN_LIMIT_SECONDS, name
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_each_service_scales_survives_a_drained_node_and_is_found_by_its_name(manifests: list[render.Manifest]) -> None:
    deployments = of_kind(manifests, "Deployment")
    assert deployments.keys() == set(PART_SETTINGS)
    assert of_kind(manifests, "HorizontalPodAutoscaler").keys() == deployments.keys()
    assert of_kind(manifests, "PodDisruptionBudget").keys() == deployments.keys()
    services = of_kind(manifests, "Service")
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert services[name]["spec"]["selector"].items() <= labels.items()
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert "replicas" not in deployment["spec"], "the autoscaler's affair"
        assert (services[name]["spec"]["clusterIP"] == "None") if name != "gateway" else True
    for part in parts.PARTS:
        (container,) = pod_of(deployments[part.name])["containers"]
        assert container["ports"][0]["containerPort"] == part.port
        assert container["ports"][1]["containerPort"] == parts.METRICS_PORT
        for called in map(parts.named, part.calls):
            (port,) = services[called.name]["spec"]["ports"]
            assert port["port"] == called.port
            assert (
                variables_given(manifests, container)[called.target_variable] == f"dns:///{called.name}:{called.port}"
            )


def test_a_pod_requests_what_the_registry_says_and_is_given_its_own_secrets(manifests: list[render.Manifest]) -> None:
    for name, deployment in of_kind(manifests, "Deployment").items():
        part, (container,) = parts.named(name), pod_of(deployment)["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests == {"cpu": f"{part.cpu_millicores}m", "memory": f"{part.memory_mib}Mi"}, name
        assert limits == {"memory": f"{part.memory_limit_mib}Mi"}, name
        secret = {entry["name"] for entry in container["env"]}
        assert ("SUPABASE_DB_URL" in secret) == (part.database is not None), name
        assert ("SUPABASE_LISTEN_DB_URL" in secret) == (part.connections > part.pool_size), name
        assert ("SUPABASE_PUBLISHABLE_KEY" in secret) == part.publishable_key, name
        assert {one.variable for one in part.secrets} <= secret, name


def test_two_replicas_of_every_part_stay_within_what_a_small_database_gives(manifests: list[render.Manifest]) -> None:
    wanted = 0
    for container in render.containers(manifests):
        part = parts.named(container["name"])
        chosen = variables_given(manifests, container).get("CONCERTO_DB_POOL_SIZE")
        wanted += 2 * (part.connections + (int(chosen) - part.pool_size if chosen and part.database else 0))
    assert wanted <= parts.MOST_CONNECTIONS, "make pools of services/parts.toml smaller"


def test_pods_reach_their_neighbours_and_nobody_else(manifests: list[render.Manifest]) -> None:
    policies = of_kind(manifests, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "concerto"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    for deployment in of_kind(manifests, "Deployment").values():
        assert deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "concerto"
    allowed = {
        (name, peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for name, policy in policies.items()
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "podSelector" in peer and "namespaceSelector" not in peer
        for port in rule["ports"]
    }
    calls = {(part.name, called.name, called.port) for part in parts.PARTS for called in map(parts.named, part.calls)}
    assert allowed == calls
    for caller, callee, port in calls:
        (rule,) = policies[callee]["spec"]["ingress"]
        assert {"podSelector": {"matchLabels": {"app.kubernetes.io/name": caller}}} in rule["from"]
        assert [entry["port"] for entry in rule["ports"]] == [port]


def test_with_tls_no_probe_speaks_plainly() -> None:
    manifests = render.render(KUBERNETES / "overlays" / "production")
    config = of_kind(manifests, "ConfigMap")["concerto"]["data"]
    assert config["CONCERTO_TLS_CLIENT_AUTH"] == "true"
    for name, deployment in of_kind(manifests, "Deployment").items():
        pod = pod_of(deployment)
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert sorted(mounted.values()) == ["tls", "tmp"]
        secrets = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in pod["volumes"]}
        assert secrets[mounted["/tls"]] == f"{name}-tls"
        assert "grpc" not in json.dumps([container[probe] for probe in container if probe.endswith("Probe")])


def test_a_patch_merges_by_name_removes_with_null_and_replaces_the_rest() -> None:
    target = {
        "containers": [{"name": "a", "args": ["1", "2"], "grpc": {"port": 1}}, {"name": "b"}],
        "kept": {"x": 1},
    }
    change = {"containers": [{"name": "a", "args": ["3"], "grpc": None}, {"name": "c"}], "kept": {"y": 2}}
    assert render.merge(target, change) == {
        "containers": [{"name": "a", "args": ["3"]}, {"name": "b"}, {"name": "c"}],
        "kept": {"x": 1, "y": 2},
    }
    assert target["containers"][0]["args"] == ["1", "2"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Kustomization\nreplacements: []\n", "uses replacements"),
        ("kind: Component\n", "is no Kustomization"),
        ("kind: Kustomization\nresources: [absent.yaml]\n", "absent.yaml cannot be read"),
        ("kind: Kustomization\npatches: [{path: change.yaml}]\n", "which is not there"),
        ("kind: Kustomization\nimages: [{name: absent, newTag: x}]\n", "No container has the image absent"),
    ],
)
def test_what_cannot_be_rendered_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "kustomization.yaml").write_text(text)
    (tmp_path / "change.yaml").write_text("kind: Service\nmetadata: {name: absent}\n")
    with pytest.raises(render.RenderError, match=message):
        render.render(tmp_path)


def test_the_lock_of_the_tools_names_no_addresses() -> None:
    lock = (ROOT / "deploy" / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--hash=sha256:" in lock

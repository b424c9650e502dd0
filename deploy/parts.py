"""Writes what cannot read the registry of parts itself: Dockerfile, compose file, manifests, .env.example, Prometheus.

    python -m deploy.parts            write every file and block anew, as `make parts` does
    python -m deploy.parts --check    say which are not as the registry has them; exit code 1 when there are any

Files of one service are written whole from deploy/templates. Files with more in them keep what stands outside of
`# begin parts: <block>` and `# end parts`.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from servicekit import parts
from servicekit.parts import Part, PartError

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "deploy" / "templates"
KUBERNETES = Path("deploy") / "kubernetes"
# Settings of a process that the compose file does not hand on, and why.
NOT_IN_COMPOSE = {
    "CONCERTO_DRAIN_DELAY_SECONDS": "nothing in front of one host's gateway forgets addresses slowly",
    "CONCERTO_TLS_CERT_FILE": "all containers are on one host",
    "CONCERTO_TLS_KEY_FILE": "all containers are on one host",
    "CONCERTO_TLS_CA_FILE": "all containers are on one host",
    "CONCERTO_TLS_CLIENT_AUTH": "all containers are on one host",
    "GATEWAY_WEB_FOLDER": "the image has its own",
    "LANGSMITH_TRACING": "sends what people write to somebody else, with more variables of its own",
    "GATEWAY_SOCKET_FD": "only for what starts processes by hand",
    "CONCERTO_PROCESS_ID": "only for what sees them end, and tells the database",
}
# The compose file hands it to those that need it beside the database, and stops where it is missing.
# What a service cannot do without, and where it is from.
REQUIRED = {
    "SUPABASE_PUBLISHABLE_KEY": "the publishable key of the Supabase project",
    "CONCERTO_SERVICE_KEY": "at least 32 random characters, for instance from openssl rand -hex 32",
}
FILES_OF_A_SERVICE = {
    KUBERNETES / "base" / "{name}.yaml": "service.yaml",
    KUBERNETES / "components" / "tls" / "{name}.yaml": "tls.yaml",
}
"""What each service has for itself, and the template that it is written from."""

_BLOCK = re.compile(
    r"^(?P<indent> *)# begin parts: (?P<name>\w+)\n(?P<old>.*?)^ *# end parts\n", re.MULTILINE | re.DOTALL
)
_SHARED = re.compile(r"^x-(?:common|database):.*?(?=^\S)", re.MULTILINE | re.DOTALL)
_GATEWAY_TAG = re.compile(r"^  - name: registry\.invalid/concerto-gateway\n    newTag: (.+)$", re.MULTILINE)
_LINES = re.compile(r"^(?P<indent> *)\{\{(?P<name>\w+)\}\}\n", re.MULTILINE)
_WORD = re.compile(r"\{\{(\w+)\}\}")


class TemplateError(Exception):
    """A template or a block names what does not exist. The message says which and where."""


def main(arguments: list[str], services: Iterable[Part] = parts.SERVICES) -> int:
    """Write or check everything; print what has changed or should, or why it cannot be known. Returns the exit code."""
    services = tuple(services)
    try:
        wanted = contents(services)
    except (PartError, TemplateError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    stale = [file for file, text in wanted.items() if not (ROOT / file).exists() or (ROOT / file).read_text() != text]
    if "--check" in arguments:
        for file in stale:
            sys.stdout.write(f"{file} is not as services/parts.toml has it. Run: make parts\n")
        return 1 if stale else 0
    for file in stale:
        (ROOT / file).write_text(wanted[file])
        sys.stdout.write(f"{file} is written\n")
    for file in abandoned(services):
        (ROOT / file).unlink()
        sys.stdout.write(f"{file} is removed: no such service is declared\n")
    return 0


def contents(services: Iterable[Part] = parts.SERVICES) -> dict[Path, str]:
    """Return what every written file has to hold, by its place in the working copy. Raises PartError, TemplateError."""
    services = tuple(services)
    found = {
        Path(str(file).format(name=part.name)): fill((TEMPLATES / template).read_text(), values_of(part, services))
        for file, template in FILES_OF_A_SERVICE.items()
        for part in services
    }
    for file, blocks in BLOCKS.items():
        found[file] = _with_blocks(file, (ROOT / file).read_text(), blocks, services)
    for overlay in sorted((ROOT / KUBERNETES / "overlays").iterdir()):
        file = (overlay / "kustomization.yaml").relative_to(ROOT)
        found[file] = _with_blocks(file, (ROOT / file).read_text(), {"tags": _tags(ROOT / file)}, services)
    return found


def abandoned(services: Iterable[Part] = parts.SERVICES) -> list[Path]:
    """Return files of services that are not declared any more."""
    wanted = set(contents(services))
    return [
        file.relative_to(ROOT)
        for path in FILES_OF_A_SERVICE
        for file in sorted((ROOT / path.parent).glob("*.yaml"))
        if "Written by `make parts`" in file.read_text() and file.relative_to(ROOT) not in wanted
    ]


def fill(template: str, values: Mapping[str, object]) -> str:
    """Return a template with each `{{name}}` replaced; a line of nothing else becomes as many lines as the value has.

    Raises TemplateError for a name that has no value.
    """

    def value_of(name: str) -> str:
        if name not in values:
            raise TemplateError(f"A template names {name}, which no part has.")
        return str(values[name])

    whole = _LINES.sub(lambda match: _indented(value_of(match["name"]), match["indent"]), template)
    return _WORD.sub(lambda match: value_of(match[1]), whole)


def values_of(part: Part, services: Iterable[Part] = parts.SERVICES) -> dict[str, object]:
    """Return what the templates say of one service."""
    callers = [caller for caller in (parts.GATEWAY, *services) if caller is parts.GATEWAY or part.name in caller.calls]
    ports = (443, *((5432, 6543) if part.database else ()))
    return {
        "name": part.name,
        "NAME": part.variable,
        "port": part.port,
        "metrics_port": parts.METRICS_PORT,
        "cpu_millicores": part.cpu_millicores,
        "memory_mib": part.memory_mib,
        "memory_limit_mib": part.memory_limit_mib,
        "shared": "[*common, *database]" if part.database else "*common",
        "environment": _environment(part),
        "depends_on": _depends_on(part),
        "config": f"- configMapRef:\n    name: concerto-{part.name}\n" if part.calls else "",
        "secrets": "".join(map(_secret, secrets_of(part))),
        "memory_metric": _memory_metric(part),
        "callers": "".join(_selector(caller.name) for caller in callers),
        "called": "".join(_egress(parts.named(name)) for name in part.calls),
        "outside": "".join(f"- protocol: TCP\n  port: {port}\n" for port in ports),
    }


def secrets_of(part: Part) -> list[parts.Secret]:
    """Return every secret that a pod of a service is given."""
    supabase: list[tuple[str, str, bool]] = [
        *([("SUPABASE_PUBLISHABLE_KEY", "publishable-key", False)] if part.publishable_key else []),
        *([("SUPABASE_DB_URL", "db-url", False)] if part.database else []),
        # Only where db-url is a pooler in transaction mode, through which no notifications come.
        *([("SUPABASE_LISTEN_DB_URL", "listen-db-url", True)] if part.database and part.database.listeners else []),
        # Only for projects that still sign tokens with a shared secret.
        ("SUPABASE_JWT_SECRET", "jwt-secret", True),
    ]
    return [
        *(
            parts.Secret(variable=variable, name="concerto-supabase", key=key, optional=optional)
            for variable, key, optional in supabase
        ),
        *part.secrets,
    ]


def variables_of(part: Part) -> list[str]:
    """Return the variables that a part's settings read, in their order there. Raises PartError where it has none."""
    module = f"{part.module}.settings"
    try:
        settings: Any = importlib.import_module(module).Settings
    except ModuleNotFoundError as error:
        if error.name not in (part.module, module):
            raise
        file = f"{module.replace('.', '/')}.py"
        raise PartError(
            f"{part.name} is declared in services/parts.toml, but there is no {file}, which says what it reads. "
            "Write that file (docs/adding-a-service.md says what is in it), then run `make parts` again."
        ) from None
    aliases = [field.validation_alias for field in settings.model_fields.values()]
    return [alias for alias in aliases if isinstance(alias, str)]


def _environment(part: Part) -> str:
    """Return what the compose file tells a service besides what it tells all, or all with a database."""
    compose = (ROOT / "docker-compose.yml").read_text()
    anchors = yaml.safe_load("\n".join(_SHARED.findall(compose)))
    provided = {*anchors["x-common"], *(anchors["x-database"] if part.database else ())}
    if not part.publishable_key:
        provided |= {"SUPABASE_PUBLISHABLE_KEY"}
    provided |= {f"{part.variable}_HOST", f"{part.variable}_PORT"}  # set in the image
    targets = {parts.named(name).target_variable: _address(parts.named(name)) for name in part.calls}
    lines = []
    for name in variables_of(part):
        if name in provided or name in NOT_IN_COMPOSE:
            continue
        given = f"{name}: {targets[name]}" if name in targets else f"{name}:"
        lines.append(f"{name}: ${{{name}:?Set {name} in .env to {REQUIRED[name]}}}" if name in REQUIRED else given)
    return "".join(f"{line}\n" for line in lines)


def _depends_on(part: Part) -> str:
    supabase = "  supabase:\n    condition: service_healthy\n    required: false\n" if part.database else ""
    needed = supabase + "".join(f"  {name}:\n    condition: service_healthy\n" for name in part.calls)
    return f"depends_on:\n{needed}" if needed else ""


def _secret(secret: parts.Secret) -> str:
    optional = "      optional: true\n" if secret.optional else ""
    entry = f"      name: {secret.name}\n      key: {secret.key}\n{optional}"
    return f"- name: {secret.variable}\n  valueFrom:\n    secretKeyRef:\n{entry}"


def _memory_metric(part: Part) -> str:
    if part.memory_target_mib is None:
        return ""
    target = f"    target:\n      type: AverageValue\n      averageValue: {part.memory_target_mib}Mi\n"
    return f"- type: Resource\n  resource:\n    name: memory\n{target}"


def _selector(name: str) -> str:
    return f"- podSelector:\n    matchLabels:\n      app.kubernetes.io/name: {name}\n"


def _egress(part: Part) -> str:
    return f"- to:\n{_indented(_selector(part.name), '    ')}  ports:\n    - protocol: TCP\n      port: {part.port}\n"


def _address(part: Part) -> str:
    return f"dns:///{part.name}:{part.port}"


def _variables(part: Part) -> str:
    name = part.variable
    return f"# {name}_HOST=127.0.0.1\n# {name}_PORT={part.port}\n# {name}_TARGET=127.0.0.1:{part.port}\n"


def _config_map(part: Part) -> str:
    if not part.calls:
        return ""
    targets = (parts.named(name) for name in part.calls)
    lines = "".join(f"    - {called.target_variable}={_address(called)}\n" for called in targets)
    return f"- name: concerto-{part.name}\n  literals:\n{lines}"


def _image(part: Part) -> str:
    name = f"concerto-{part.name}"
    return f"- name: {name}\n  newName: registry.invalid/{name}\n  newTag: set-by-overlay\n"


def _tags(file: Path) -> Callable[[Part], str]:
    """Return what gives a service's image the tag that the gateway's has in an overlay: they are released together."""
    found = _GATEWAY_TAG.search(file.read_text())
    if found is None:
        raise TemplateError(f"{file} gives the gateway's image no tag.")
    return lambda part: f"- name: registry.invalid/concerto-{part.name}\n  newTag: {found[1]}\n"


def _with_template(template: str) -> Callable[[Part], str]:
    return lambda part: fill((TEMPLATES / template).read_text(), values_of(part)) + "\n"


BLOCKS: Mapping[Path, Mapping[str, Callable[[Part], str]]] = {
    Path("Dockerfile"): {"stages": _with_template("stage.Dockerfile")},
    Path("docker-compose.yml"): {
        "containers": _with_template("compose.yml"),
        "container_targets": lambda part: f"{part.target_variable}: {_address(part)}\n",
        "healthy": lambda part: f"{part.name}:\n  condition: service_healthy\n",
    },
    Path(".env.example"): {"variables": _variables},
    Path("deploy/observability/prometheus.yaml"): {"names": lambda part: f"- {part.name}\n"},
    KUBERNETES / "base" / "kustomization.yaml": {
        "files": lambda part: f"- {part.name}.yaml\n",
        "config_maps": _config_map,
        "targets": lambda part: f"- {part.target_variable}={_address(part)}\n",
        "images": _image,
    },
    KUBERNETES / "base" / "network-policies.yaml": {"called": _egress},
    KUBERNETES / "components" / "tls" / "kustomization.yaml": {"patches": lambda part: f"- path: {part.name}.yaml\n"},
}
"""The blocks of each file that has more in it, and what each service has there."""


def _with_blocks(file: Path, text: str, blocks: Mapping[str, Callable[[Part], str]], services: Iterable[Part]) -> str:
    missing = sorted(set(blocks) - {match["name"] for match in _BLOCK.finditer(text)})
    if missing:
        raise TemplateError(f"{file} has no `# begin parts: {missing[0]}` with its `# end parts`.")

    def write(match: re.Match[str]) -> str:
        if match["name"] not in blocks:
            raise TemplateError(f"{file}: nothing is known to stand in the block {match['name']}.")
        indent, made = match["indent"], "".join(map(blocks[match["name"]], services)).rstrip("\n")
        return f"{indent}# begin parts: {match['name']}\n{_indented(made, indent)}{indent}# end parts\n"

    return _BLOCK.sub(write, text)


def _indented(text: str, indent: str) -> str:
    return "".join(f"{indent}{line}\n" if line else "\n" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

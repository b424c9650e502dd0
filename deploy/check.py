"""Checks the Dockerfile, the compose file and the Kubernetes manifests against what reads them, without running them.

Each tool is also given a broken copy, which it has to refuse: a check that finds nothing must be one that can find.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from deploy import render, tools
from deploy.render import RenderError
from deploy.tools import BUILD, ROOT, ToolError
from local.console import Console

KUBERNETES = ROOT / "deploy" / "kubernetes"
# The oldest and the newest version that we say we run on.
VERSIONS = ("1.33", "1.37")


@dataclass(frozen=True)
class Check:
    """One run of a tool over one file."""

    label: str
    command: list[str]
    must_fail: bool = False
    """The file is a broken copy."""


def main() -> int:
    """Run every check; print each with its time and what a failed one said. Returns the exit code."""
    console = Console()
    try:
        if tools.ensure():
            console.line("  tools installed from deploy/requirements.lock")
        failed = [check.label for check in checks(BUILD / "deploy") if not run(check, console)]
    except (ToolError, RenderError) as error:
        console.problem(str(error))
        return 1
    console.line(f"Failed: {', '.join(failed)}" if failed else "Images, compose file and manifests are well formed.")
    return 1 if failed else 0


def run(check: Check, console: Console) -> bool:
    """Run one check and print it; returns whether it came out as it has to."""
    started = time.monotonic()
    done = subprocess.run(check.command, cwd=ROOT, capture_output=True, text=True, check=False)
    if (done.returncode != 0) == check.must_fail:
        console.done(check.label, time.monotonic() - started)
        return True
    output = f"{done.stdout}{done.stderr}".strip()
    console.problem(f"{check.label}: {'was not found' if check.must_fail else 'failed'}\n{output}")
    return False


def checks(folder: Path) -> Iterator[Check]:
    """Yield every check. What is rendered or broken for one is written into the folder. Raises RenderError."""
    folder.mkdir(parents=True, exist_ok=True)
    yield from _check_compose(folder)
    yield from _check_dockerfile(folder)
    yield from _check_manifests(folder)


def _check_compose(folder: Path) -> Iterator[Check]:
    def command(file: Path) -> list[str]:
        return [tools.program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(file)]

    file = ROOT / "docker-compose.yml"
    yield Check("docker-compose.yml, compose-spec", command(file))
    broken = folder / "broken-compose.yml"
    broken.write_text(file.read_text().replace("healthcheck:", "healthchek:"))
    yield Check("a misspelt healthcheck is found", command(broken), must_fail=True)
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    if workflows:
        schema = ("--builtin-schema", "vendor.github-workflows")
        yield Check("workflows", [tools.program("check-jsonschema"), *schema, *map(str, workflows)])


def _check_dockerfile(folder: Path) -> Iterator[Check]:
    file = ROOT / "Dockerfile"
    yield Check("Dockerfile, hadolint", [tools.program("hadolint"), str(file)])
    broken = folder / "Dockerfile.broken"
    broken.write_text(file.read_text().replace("USER 10001:10001", "USER concerto"))
    yield Check("an account without a number is found", [tools.program("hadolint"), str(broken)], must_fail=True)


def _check_manifests(folder: Path) -> Iterator[Check]:
    def command(version: str, file: Path) -> list[str]:
        return [tools.program("kubernetes-validate"), "-k", version, "--strict", str(file)]

    rendered: list[Path] = []
    for source in (KUBERNETES / "base", *sorted((KUBERNETES / "overlays").iterdir())):
        file = folder / f"{source.name}.yaml"
        manifests = render.render(source)
        file.write_text(yaml.safe_dump_all(manifests, sort_keys=False))
        rendered.append(file)
        for version in VERSIONS:
            yield Check(f"{source.name}, {len(manifests)} manifests, {version}", command(version, file))
    broken = folder / "broken-base.yaml"
    broken.write_text(rendered[0].read_text().replace("containerPort:", "containerport:"))
    yield Check("a misspelt containerPort is found", command(VERSIONS[-1], broken), must_fail=True)


if __name__ == "__main__":
    sys.exit(main())

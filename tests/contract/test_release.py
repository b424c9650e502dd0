import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy import image, release, render
from deploy.release import ReleaseError
from tests.support.contract import ROOT

REGISTRY = "registry.example/owner/concerto"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Notes what it is called with; `rollout status` of the service in FAILS fails as a Deployment that never becomes ready.
KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$KUBECTL_LOG"
case "$*" in *"deployment/$FAILS "*) exit 1 ;; esac
"""


def test_every_process_that_runs_in_production_has_its_image_rolled_out() -> None:
    assert set(release.images()) == set(image.SERVICES) - {"supabase"}


@pytest.mark.parametrize("overlay", sorted(path.name for path in release.OVERLAYS.iterdir()))
def test_an_overlay_gets_every_image_of_the_commit_and_nothing_else_changes(overlay: str, tmp_path: Path) -> None:
    before = render.render(release.OVERLAYS / overlay)
    after = render.render(release.write(overlay, registry=REGISTRY, tag=COMMIT, folder=tmp_path))
    expected = {f"{REGISTRY}/concerto-{service}:{COMMIT}" for service in release.images()}
    found = set()
    for manifest in (entry for entry in after if entry["kind"] == "Deployment"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            found.add(container.pop("image"))
    for manifest in (entry for entry in before if entry["kind"] == "Deployment"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            container.pop("image")
    assert found == expected
    assert after == before


def test_an_overlay_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"'testing', only production, staging"):
        release.write("testing", registry=REGISTRY, tag=COMMIT, folder=tmp_path)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A copy of what a release needs, with names of its own, and a kubectl that only notes its calls."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "deploy", copy / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (copy / "deploy" / "kubernetes").rglob("*.yaml"):
        file.write_text(file.read_text().replace(".invalid", ".example"))
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o700)
    return copy


def run(folder: Path, *, fails: str = "none") -> tuple["subprocess.CompletedProcess[str]", list[str]]:
    log = folder.parent / "kubectl.log"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.release", "roll-out", "staging", REGISTRY, COMMIT],
        cwd=folder,
        env={
            "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.defpath}",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "KUBECTL_LOG": str(log),
            "FAILS": fails,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done, log.read_text().splitlines() if log.exists() else []


def test_the_overlay_is_applied_once_and_every_deployment_is_waited_for(cluster: Path) -> None:
    done, calls = run(cluster)
    assert (done.returncode, done.stderr) == (0, "")
    applied, *waited = calls
    folder = Path(applied.removeprefix("apply -k "))
    assert yaml.safe_load((folder / "kustomization.yaml").read_text())["images"]
    assert (folder / yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"][0]).is_dir()
    assert sorted(waited) == sorted(
        f"-n concerto-staging rollout status deployment/{service} --timeout=10m" for service in release.images()
    )


def test_a_deployment_that_does_not_become_ready_fails_the_release(cluster: Path) -> None:
    done, calls = run(cluster, fails="sessions")
    assert done.returncode == 1
    assert "deployment/sessions" in done.stderr
    assert "serve on" in done.stderr
    assert calls[0].startswith("apply -k ")


def test_names_that_were_never_replaced_stop_it_before_anything_is_applied(cluster: Path) -> None:
    file = cluster / "deploy" / "kubernetes" / "overlays" / "staging" / "kustomization.yaml"
    file.write_text(file.read_text().replace("staging.concerto.example", "staging.concerto.invalid"))
    done, calls = run(cluster)
    assert done.returncode == 1
    assert "https://staging.concerto.invalid" in done.stderr
    assert "docs/deployment.md" in done.stderr
    assert calls == []

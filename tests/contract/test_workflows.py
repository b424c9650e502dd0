"""The workflows of GitHub Actions: pinned, with few rights, and with secrets where they are needed alone."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import release
from tests.support.contract import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
CI = next(file for file in FILES if file.name == "ci.yaml")


APPLIES, ROLLS_OUT, PUSHES = "concerto migrate --target hosted", "deploy.release roll-out", "docker push"


def read(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{file.name} {name}", step)
        for file in FILES
        for name, job in read(file)["jobs"].items()
        for step in job.get("steps", [])
    ]


def test_every_action_is_pinned_to_a_commit_with_its_version_beside() -> None:
    used = [(place, step["uses"]) for place, step in steps() if "uses" in step]
    assert used
    assert [entry for entry in used if not PINNED.match(entry[1])] == []
    for file in FILES:
        for line in file.read_text().splitlines():
            assert "uses:" not in line or re.search(r"# v\d", line), line


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_reads_only_and_keeps_no_credentials(file: Path) -> None:
    workflow = read(file)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "timeout-minutes" in job
        pushes = any(PUSHES in str(step.get("run")) for step in job["steps"])
        assert job.get("permissions") == ({"contents": "read", "packages": "write"} if pushes else None), name
        for step in job["steps"]:
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize(("place", "script"), [(place, step["run"]) for place, step in steps() if "run" in step])
def test_a_script_is_one_that_bash_can_read(place: str, script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), place


def test_scripts_call_modules_and_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    modules, made = set(), set()
    for _, step in steps():
        modules |= set(re.findall(r"python3? -m ([\w.]+)", str(step.get("run", ""))))
        made |= set(re.findall(r"^make ([a-z-]+)", str(step.get("run", "")), re.MULTILINE))
    assert modules
    assert [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []
    assert made
    assert made - targets == set()


def test_no_script_takes_text_from_an_event() -> None:
    # What a pull request's author writes would become a part of the script.
    assert [place for place, step in steps() if "${{" in str(step.get("run", ""))] == []


def test_secrets_reach_the_one_step_that_needs_them() -> None:
    seen = set()
    for place, step in steps():
        named = set(re.findall(r"secrets\.(\w+)", str(step)))
        script = str(step.get("run", ""))
        if APPLIES in script:
            assert named == {"SUPABASE_PROJECT_ID", "SUPABASE_DB_PASSWORD", "SUPABASE_ACCESS_TOKEN"}
        elif ROLLS_OUT in script:
            assert named == {"KUBE_CONFIG"}
        else:
            assert named == set(), place
        # The forge's own token is for its own registry.
        assert ("github.token" in str(step)) == ("docker login ghcr.io" in script), place
        seen |= named
    assert len(seen) == 4


def test_pull_requests_are_tested_and_each_branch_has_its_project() -> None:
    workflow = read(CI)
    events = workflow[True]  # YAML reads `on` as a truth
    assert "pull_request" in events
    assert "pull_request_target" not in events
    assert events["push"]["branches"] == ["develop", "main"]
    jobs = workflow["jobs"]
    assert any(step.get("run") == "bash .ci/run" for step in jobs["test"]["steps"])
    assert any("local.migrations.landed" in str(step.get("run")) for step in jobs["landed"]["steps"])
    for name, branch in (("staging", "develop"), ("production", "main")):
        job = jobs[name]
        assert (job["environment"], job["needs"]) == (name, ["landed", "test", "images"])
        assert f"github.ref == 'refs/heads/{branch}'" in job["if"]
        assert "github.event_name != 'pull_request'" in job["if"]
        assert job["concurrency"]["cancel-in-progress"] is False


def test_a_release_migrates_first_and_then_rolls_out_the_overlay_of_its_environment() -> None:
    jobs = read(CI)["jobs"]
    for name in ("staging", "production"):
        scripts = [str(step.get("run", "")) for step in jobs[name]["steps"]]
        [applied] = [place for place, script in enumerate(scripts) if APPLIES in script]
        [rolled] = [place for place, script in enumerate(scripts) if ROLLS_OUT in script]
        assert applied < rolled
        assert jobs[name]["env"]["OVERLAY"] == name
        assert (release.OVERLAYS / name).is_dir()


def test_images_are_pushed_of_no_pull_request_and_only_after_the_tests() -> None:
    jobs = read(CI)["jobs"]
    assert [name for name, job in jobs.items() if PUSHES in str(job)] == ["images"]
    assert jobs["images"]["needs"] == ["landed", "test"]
    assert jobs["images"]["if"].startswith("github.event_name != 'pull_request' && (")


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A docker that notes its calls and knows one image: that of auth."""
    program = tmp_path / "docker"
    log = tmp_path / "docker.log"
    program.write_text(
        f"""#!/bin/sh
printf '%s\\n' "$*" >> {log}
case "$*" in "manifest inspect "*concerto-auth:*) exit 0 ;; "manifest inspect "*) exit 1 ;; esac
"""
    )
    program.chmod(0o700)
    return log


def test_every_service_gets_an_image_under_the_name_that_is_rolled_out(docker: Path) -> None:
    [script] = [step["run"] for _, step in steps() if PUSHES in str(step.get("run"))]
    bash = shutil.which("bash")
    assert bash is not None
    environment = {
        "PATH": f"{docker.parent}:/usr/bin:/bin",
        "GITHUB_REPOSITORY": "Owner/Concerto",
        "GITHUB_SERVER_URL": "https://forge.example",
        "GITHUB_SHA": "abc123",
    }
    subprocess.run([bash, "-e", "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True)
    calls = docker.read_text().splitlines()
    pushed = [call.removeprefix("push ") for call in calls if call.startswith("push ")]
    built = [call for call in calls if call.startswith("build ")]
    expected = [service for service in release.images() if service != "auth"]
    assert pushed == [f"ghcr.io/owner/concerto/concerto-{service}:abc123" for service in expected]
    assert [re.findall(r"SERVICE=(\w+) --tag (\S+)", call) for call in built] == [
        [(service, image)] for service, image in zip(expected, pushed, strict=True)
    ]


def roll_out(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the step with a kubectl that would show its configuration."""
    script = next(step["run"] for place, step in steps() if ROLLS_OUT in str(step.get("run")))
    kubectl = folder / "kubectl"
    kubectl.write_text('#!/bin/sh\ncat "$KUBECONFIG"\n')
    kubectl.chmod(0o700)
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "GITHUB_REPOSITORY": "Owner/Concerto",
        "GITHUB_SHA": "abc123",
        "OVERLAY": "staging",
        "RUNNER_TEMP": str(folder),
        "KUBE_CONFIG": "",
        **variables,
    }
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run(
        [bash, "-e", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_an_environment_without_a_cluster_is_told_that_nothing_is_rolled_out(tmp_path: Path) -> None:
    done = roll_out(tmp_path)
    assert done.returncode == 0
    assert "::notice::" in done.stdout
    assert "KUBE_CONFIG" in done.stdout


def test_a_roll_out_leaves_no_configuration_behind_also_when_it_fails(tmp_path: Path) -> None:
    done = roll_out(tmp_path, KUBE_CONFIG="of the cluster")
    # The overlay of this repository still has placeholders for names.
    assert done.returncode == 1
    assert ".invalid" in done.stderr
    assert not (tmp_path / "kubeconfig").exists()

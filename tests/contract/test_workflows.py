"""The workflows of GitHub Actions: pinned, with few rights, and with secrets where they are needed alone."""

import re
from typing import Any

import pytest
import yaml

from tests.support.contract import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
CI = next(file for file in FILES if file.name == "ci.yaml")


def read(path: Any) -> dict[Any, Any]:
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
def test_a_workflow_reads_only_and_keeps_no_credentials(file: Any) -> None:
    workflow = read(file)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_no_script_takes_text_from_an_event() -> None:
    # What a pull request's author writes would become a part of the script.
    assert [place for place, step in steps() if "${{" in str(step.get("run", ""))] == []


def test_secrets_reach_the_one_step_that_applies_migrations() -> None:
    for place, step in steps():
        named = set(re.findall(r"secrets\.(\w+)", str(step)))
        if "concerto migrate --target hosted" in str(step.get("run", "")):
            assert named == {"SUPABASE_PROJECT_ID", "SUPABASE_DB_PASSWORD", "SUPABASE_ACCESS_TOKEN"}
        else:
            assert named == set(), place


def test_pull_requests_are_tested_and_each_branch_has_its_project() -> None:
    workflow = read(CI)
    events = workflow[True]  # YAML reads `on` as a truth
    assert "pull_request" in events
    assert "pull_request_target" not in events
    assert events["push"]["branches"] == ["develop", "main"]
    jobs = workflow["jobs"]
    assert any(step.get("run") == "bash .ci/run" for step in jobs["test"]["steps"])
    assert any("local/migrations/landed.py" in str(step.get("run")) for step in jobs["landed"]["steps"])
    for name, branch in (("staging", "develop"), ("production", "main")):
        job = jobs[name]
        assert (job["environment"], job["needs"]) == (name, ["landed", "test"])
        assert f"github.ref == 'refs/heads/{branch}'" in job["if"]
        assert "github.event_name != 'pull_request'" in job["if"]
        assert job["concurrency"]["cancel-in-progress"] is False

import os
import re
import subprocess
from pathlib import Path
from uuid import uuid4

from tests.support.contract import ROOT
from tests.support.suites import RunningStack


def walk() -> str:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", readme, flags=re.DOTALL)
    return next(block for block in blocks if block.startswith("API="))


def test_the_walk_of_the_readme_works_as_it_stands(stack: RunningStack, tmp_path: Path) -> None:
    script = walk().replace("http://127.0.0.1:8000", stack.gateway_url)
    script = script.replace("clara@example.com", f"clara-{uuid4()}@example.com")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},  # noqa: TID251 (to find curl and python3)
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "event: run.started" in done.stdout
    assert "event: message.delta" in done.stdout
    assert 'event: run.finished\ndata: {"state":"SUCCEEDED"}' in done.stdout
    listed = done.stdout.rsplit('{"messages":', 1)[1]
    assert "Clara Schumann" in listed
    assert '"role":"assistant"' in listed

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.settings import ROOT, SettingsError, load_settings
from servicekit import settings_file

TEXT = "# Prüfung\nCONCERTO_AGENT=größe\nOPENAI_API_KEY=geheim\n"
WRONG = [
    (TEXT.encode("utf-16"), 1, "in UTF-16"),
    (TEXT.encode("utf-16-le"), 1, "UTF-16"),
    (TEXT.encode("utf-16-be"), 1, "UTF-16"),
    (TEXT.encode("latin-1"), 1, "Latin-1"),
    (b"A=1\r\nB=2\r\nC=gr\xf6\xdfe\r\n", 3, "Latin-1"),
    (b"A=1\nB=\xc3", 2, "Latin-1"),
]


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_an_editor_saves_as_utf_8_is_read(tmp_path: Path, codec: str, end: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(("OPENAI_API_KEY=geheim\n" + TEXT).replace("\n", end).encode(codec))
    assert settings_file.read(file) == {"OPENAI_API_KEY": "geheim", "CONCERTO_AGENT": "größe"}
    assert load_settings(environment={}, env_file=file).variables["OPENAI_API_KEY"] == "geheim"


@pytest.mark.parametrize(("content", "line", "codec"), WRONG)
def test_another_encoding_is_one_sentence_with_file_and_line(
    tmp_path: Path, content: bytes, line: int, codec: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        load_settings(environment={"CONCERTO_ENV_FILE": str(file)})
    assert str(refused.value).startswith(f"{file}, line {line}: ")
    assert codec in str(refused.value)
    assert str(refused.value).endswith("Save the file as UTF-8.")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("codec", ["utf-16", "utf-8-sig"])
def test_a_process_that_is_started_by_hand_reads_the_file_in_the_same_way(tmp_path: Path, codec: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes("CONCERTO_LOG_LEVEL=ERROR\n".encode(codec))
    program = "from gateway.settings import Settings; print(Settings.load().log_level)"
    environment = {"PATH": os.environ["PATH"], "CONCERTO_ENV_FILE": str(file)}  # noqa: TID251
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if codec == "utf-16":
        sentence = f"{file}, line 1: the file is in UTF-16. Save the file as UTF-8.\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
    else:
        assert (done.returncode, done.stdout) == (0, "ERROR\n")


def test_a_file_that_is_not_there_sets_nothing(tmp_path: Path) -> None:
    assert settings_file.read(tmp_path / ".env") == {}
    assert settings_file.read(tmp_path) == {}

import subprocess
from pathlib import Path

import pytest

from local.migrations.baseline import BASELINE, FOLDED
from local.migrations.landed import NO_COMMIT, main, problems
from local.settings import ROOT

CHECK = (
    "import sys; sys.path.insert(0, sys.argv[1]); from local.migrations.landed import main; "
    "sys.exit(main(['--base', 'main', '--project', sys.argv[2]]))"
)
OLD, NEWER, NEWEST = "20260101000000_a.sql", "20260201000000_b.sql", "20260301000000_c.sql"


class Repository:
    """A real git repository with migrations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.migrations = folder / "supabase" / "migrations"
        self.migrations.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def write(self, name: str, text: str = "select 1;") -> None:
        (self.migrations / name).write_text(text)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.write(OLD)
    made.write(NEWER)
    made.commit()
    made.git("switch", "-q", "-c", "work")
    return made


def test_a_new_migration_behind_all_others_may_land(repository: Repository) -> None:
    repository.write(NEWEST)
    assert problems(repository.folder, "main") == []
    repository.commit()
    assert problems(repository.folder, "main") == []
    assert main(["--base", "main", "--project", str(repository.folder)]) == 0


def test_an_edited_migration_is_named_committed_or_not(repository: Repository) -> None:
    repository.write(OLD, "select 2;")
    (problem,) = problems(repository.folder, "main")
    assert problem.startswith(f"supabase/migrations/{OLD} was edited")
    repository.commit()
    assert problems(repository.folder, "main") == [problem]
    assert main(["--base", "main", "--project", str(repository.folder)]) == 1


def test_a_removed_and_a_renamed_migration_are_named(repository: Repository) -> None:
    (repository.migrations / OLD).unlink()
    assert [problem.split(" after")[0] for problem in problems(repository.folder, "main")] == [
        f"supabase/migrations/{OLD} was removed"
    ]
    repository.git("restore", ".")
    repository.git("mv", f"supabase/migrations/{NEWER}", f"supabase/migrations/{NEWEST}")
    assert [problem.split(" after")[0] for problem in problems(repository.folder, "main")] == [
        f"supabase/migrations/{NEWER} was removed"
    ]


def test_a_migration_older_than_what_landed_meanwhile_is_named(repository: Repository) -> None:
    repository.write("20260215000000_mine.sql")
    repository.commit()
    assert problems(repository.folder, "main") == []
    repository.git("switch", "-q", "main")
    repository.write(NEWEST)
    repository.commit()
    repository.git("switch", "-q", "work")
    (problem,) = problems(repository.folder, "main")
    assert "20260215000000_mine.sql is older than 20260301000000_c.sql" in problem


def test_what_the_base_has_got_meanwhile_is_nothing_that_was_removed_here(repository: Repository) -> None:
    repository.git("switch", "-q", "main")
    repository.write(NEWEST)
    repository.commit()
    repository.git("switch", "-q", "work")
    assert problems(repository.folder, "main") == []


def test_a_branch_that_was_just_made_has_landed_nothing(repository: Repository) -> None:
    repository.write(OLD, "select 2;")
    assert problems(repository.folder, NO_COMMIT) == []


def test_a_base_that_is_not_there_is_told_with_what_to_do(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--base", "origin/nowhere", "--project", str(repository.folder)]) == 2
    assert "fetch-depth: 0" in capsys.readouterr().err


def test_a_base_without_migrations_is_a_beginning(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    (tmp_path / "README").touch()
    first = repository.commit()
    repository.write(OLD)
    repository.commit()
    assert problems(tmp_path, first) == []


@pytest.fixture
def of_before(tmp_path: Path) -> Repository:
    """A repository in which the migrations that the baseline holds have landed."""
    made = Repository(tmp_path)
    for version in FOLDED:
        made.write(f"{version}_x.sql")
    made.commit()
    made.git("switch", "-q", "-c", "work")
    return made


def fold(repository: Repository) -> None:
    for version in FOLDED:
        (repository.migrations / f"{version}_x.sql").unlink()
    repository.write(f"{BASELINE}_baseline.sql")


def test_what_the_baseline_holds_may_go_when_it_comes_and_not_before(of_before: Repository) -> None:
    fold(of_before)
    assert problems(of_before.folder, "main") == []
    (of_before.migrations / f"{BASELINE}_baseline.sql").unlink()
    assert len(problems(of_before.folder, "main")) == len(FOLDED)


def test_a_baseline_that_has_landed_is_not_edited_and_what_it_holds_never_comes_back(of_before: Repository) -> None:
    of_before.git("switch", "-q", "main")
    fold(of_before)
    of_before.commit()
    of_before.git("switch", "-q", "-c", "later")
    of_before.write(f"{BASELINE}_baseline.sql", "select 2;")
    (problem,) = problems(of_before.folder, "main")
    assert problem.startswith(f"supabase/migrations/{BASELINE}_baseline.sql was edited")
    of_before.git("restore", ".")
    of_before.write(f"{FOLDED[-1]}_x.sql")
    (problem,) = problems(of_before.folder, "main")
    assert f"{FOLDED[-1]}_x.sql is older than {BASELINE}_baseline.sql" in problem


def test_the_baseline_is_the_oldest_file_and_newer_than_what_it_holds() -> None:
    files = sorted(file.name for file in (ROOT / "supabase" / "migrations").glob("*.sql"))
    assert files[0] == f"{BASELINE}_baseline.sql"
    assert sorted(FOLDED) == list(FOLDED)
    assert FOLDED[-1] < BASELINE


def test_the_check_needs_nothing_but_python_and_git(repository: Repository) -> None:
    # As CI runs it: without what `make setup` installs.
    done = subprocess.run(
        ["python3", "-I", "-S", "-c", CHECK, str(ROOT), str(repository.folder)],
        cwd=repository.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

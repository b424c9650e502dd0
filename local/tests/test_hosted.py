import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from local.console import Console
from local.hosted.migrate import LINKED, History, migrate, target_of, undo, undo_hosted
from local.migrations.baseline import BASELINE, FOLDED
from local.migrations.supabase_cli import MigrationError, address_target, with_tls
from local.settings import Settings, load_settings
from tests.support.database import make_as_before_the_baseline
from tests.support.suites import RunningStack

LATER = "20261201000000"
A, B, C = "20260101000000", "20260201000000", "20260301000000"


def settings_with(home: Path, **variables: str) -> Settings:
    return load_settings(environment={"CONCERTO_HOME": str(home), **variables}, env_file=None)


class Project:
    """A working copy whose Supabase CLI is a script of ours: it notes its calls and answers as it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls.jsonl"
        for name in (A, B, C):
            for kind in ("migrations", "rollbacks"):
                (folder / "supabase" / kind).mkdir(parents=True, exist_ok=True)
                (folder / "supabase" / kind / f"{name}_x.sql").write_text("select 1;")
        program = folder / "node_modules" / ".bin" / "supabase"
        program.parent.mkdir(parents=True)
        program.write_text(
            "#!/usr/bin/env python3\n"
            "import json, os, pathlib, sys\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "with (folder / 'calls.jsonl').open('a') as calls:\n"
            "    calls.write(json.dumps({'arguments': sys.argv[1:], 'environment': dict(os.environ)}) + '\\n')\n"
            "answers = json.loads((folder / 'answers.json').read_text())\n"
            "answer = answers.get(' '.join(sys.argv[1:3]), {})\n"
            "applied = folder / 'applied.json'\n"
            "if answer.get('applies') is not None and '--dry-run' not in sys.argv:\n"
            "    applied.write_text(json.dumps(answer['applies']))\n"
            "if sys.argv[1:3] == ['migration', 'list']:\n"
            "    rows = [{'local': '', 'remote': v, 'time': ''} for v in json.loads(applied.read_text())]\n"
            "    print(json.dumps({'message': 'Migrations listed', 'data': {'migrations': rows}}))\n"
            "print(answer.get('says', ''), file=sys.stderr)\n"
            "sys.exit(answer.get('code', 0))\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.answer(applied=[])

    def answer(self, *, applied: list[str], **commands: dict[str, object]) -> None:
        (self.folder / "applied.json").write_text(json.dumps(applied))
        named = {name.replace("_", " "): answer for name, answer in commands.items()}
        (self.folder / "answers.json").write_text(json.dumps(named))

    def called(self) -> list[list[str]]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [json.loads(line)["arguments"] for line in lines]

    def environments(self) -> list[dict[str, str]]:
        return [json.loads(line)["environment"] for line in self.calls.read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "copy")


async def run(project: Project, settings: Settings, **options: object) -> str:
    printed = io.StringIO()
    given = {"node": Path("/usr/bin/node"), "ask": None, **options}
    await migrate(settings, project.folder, Console(printed), **given)  # type: ignore[arg-type]
    return printed.getvalue()


def test_what_is_pending_unknown_and_late_follows_from_files_and_history() -> None:
    history = History(files=(A, B), applied=(A, C))
    assert (history.pending, history.unknown, history.late) == ((B,), (C,), (B,))
    assert History(files=(A, B), applied=()).late == ()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://postgres@db.x.supabase.co:5432/postgres", "sslmode=require"),
        ("postgresql://postgres@127.0.0.1:1/postgres", "sslmode=disable"),
        ("postgresql://p@h/postgres?sslmode=verify-full&sslrootcert=/a b", "sslmode=verify-full&sslrootcert=%2Fa%20b"),
    ],
)
def test_tls_is_demanded_of_every_other_machine(url: str, expected: str) -> None:
    assert with_tls(url).partition("?")[2] == expected


@pytest.mark.parametrize("url", ["https://x.supabase.co", "postgresql://[", "x", "postgresql://h:no/postgres"])
def test_an_address_that_is_none_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(MigrationError) as error:
        with_tls(url)
    assert url not in str(error.value)


def test_a_password_is_no_argument() -> None:
    target = address_target("postgresql://postgres.ref:p%40ss@pooler.example:5432/postgres", home=Path("/h"))
    assert target.flag == "--remote=postgresql://postgres.ref@pooler.example:5432/postgres?sslmode=require"
    assert target.environment == {"HOME": "/h", "PGPASSWORD": "p@ss"}
    assert "p@ss" not in repr(target)


def answering(asked: list[str], *, yes: bool) -> Callable[[str], bool]:
    """Return what notes each question and answers it so."""

    def answer(question: str) -> bool:
        asked.append(question)
        return yes

    return answer


async def test_a_named_project_is_linked_first_and_told_its_secrets_by_the_environment(
    project: Project, tmp_path: Path
) -> None:
    project.answer(applied=[A], db_push={"applies": [A, B, C]})
    secrets = {"SUPABASE_ACCESS_TOKEN": "token-t", "SUPABASE_DB_PASSWORD": "password-p"}
    settings = settings_with(tmp_path, SUPABASE_PROJECT_ID="abcdefghijklmnopqrst", OPENAI_API_KEY="key-k", **secrets)
    printed = await run(project, settings)
    calls = project.called()
    assert calls[0] == ["link", "--project-ref", "abcdefghijklmnopqrst"]
    assert calls[1:] == [
        ["migration", "list", "--output-format", "json", "--remote"],
        ["db", "push", "--yes", "--remote"],
        ["migration", "list", "--output-format", "json", "--remote"],
    ]
    for environment in project.environments():
        assert {name: environment[name] for name in secrets} == secrets
        assert "OPENAI_API_KEY" not in environment
    assert "Applied 2; nothing is pending." in printed
    assert not any(secret in printed for secret in secrets.values())


async def test_a_project_that_cannot_be_linked_says_which_variables_it_needs(project: Project, tmp_path: Path) -> None:
    (project.folder / "answers.json").write_text(json.dumps({"link --project-ref": {"code": 1, "says": "no token"}}))
    with pytest.raises(MigrationError, match=r"(?s)SUPABASE_ACCESS_TOKEN.*no token"):
        await run(project, settings_with(tmp_path, SUPABASE_PROJECT_ID="abcdefghijklmnopqrst"))


async def test_a_dry_run_applies_nothing(project: Project, tmp_path: Path) -> None:
    project.answer(applied=[A], db_push={"applies": [A, B, C]})
    printed = await run(project, settings_with(tmp_path), dry_run=True)
    assert ["db", "push", "--dry-run", "--remote"] in project.called()
    assert f"{B}_x.sql" in printed
    assert "Nothing was applied" in printed


async def test_a_no_applies_nothing(project: Project, tmp_path: Path) -> None:
    asked: list[str] = []
    with pytest.raises(MigrationError, match=r"^Nothing was applied\.$"):
        await run(project, settings_with(tmp_path), ask=answering(asked, yes=False))
    assert asked == ["Apply 3 to the linked project?"]
    assert not [call for call in project.called() if call[:2] == ["db", "push"]]


async def test_what_was_applied_and_is_no_file_here_stops_everything(project: Project, tmp_path: Path) -> None:
    project.answer(applied=[A, "20260115000000"], db_push={"applies": []})
    with pytest.raises(MigrationError, match=r"20260115000000.*git pull"):
        await run(project, settings_with(tmp_path))
    assert not [call for call in project.called() if call[:2] == ["db", "push"]]


async def test_a_migration_older_than_an_applied_one_needs_a_word(project: Project, tmp_path: Path) -> None:
    project.answer(applied=[A, C], db_push={"applies": [A, B, C]})
    with pytest.raises(MigrationError, match="--include-all"):
        await run(project, settings_with(tmp_path))
    await run(project, settings_with(tmp_path), include_late=True)
    assert ["db", "push", "--yes", "--include-all", "--remote"] in project.called()


async def test_a_push_that_stops_half_way_says_what_was_applied(project: Project, tmp_path: Path) -> None:
    project.answer(applied=[A], db_push={"applies": [A, B], "code": 1, "says": "ERROR: no such column"})
    with pytest.raises(MigrationError) as error:
        await run(project, settings_with(tmp_path))
    assert "no such column" in str(error.value)
    assert f"Applied before that: {B}_x.sql." in str(error.value)


@pytest.fixture
def folded(project: Project) -> Project:
    """The same with the baseline and one migration behind it, on a database that has what the baseline holds."""
    for kind in ("migrations", "rollbacks"):
        for file in (project.folder / "supabase" / kind).iterdir():
            file.unlink()
        for version in (BASELINE, LATER):
            (project.folder / "supabase" / kind / f"{version}_y.sql").write_text("select 1;")
    project.answer(
        applied=list(FOLDED), migration_repair={"applies": [BASELINE]}, db_push={"applies": [BASELINE, LATER]}
    )
    return project


async def test_the_history_of_before_the_baseline_is_changed_and_what_is_newer_applied(
    folded: Project, tmp_path: Path
) -> None:
    asked: list[str] = []
    printed = await run(folded, settings_with(tmp_path), ask=answering(asked, yes=True))
    assert asked == [
        "Let the history of the linked project name that one instead?", "Apply 1 to the linked project?"
    ]  # fmt: skip
    assert [call for call in folded.called() if "list" not in call] == [
        ["migration", "repair", "--status", "applied", BASELINE, "--yes", "--remote"],
        ["migration", "repair", "--status", "reverted", *FOLDED, "--yes", "--remote"],
        ["db", "push", "--yes", "--remote"],
    ]
    assert f"{len(FOLDED)} of them stand in {BASELINE}_y.sql now" in printed
    assert "Applied 1; nothing is pending." in printed


async def test_a_change_of_the_history_that_was_cut_off_goes_on(folded: Project, tmp_path: Path) -> None:
    left = [*FOLDED[3:], BASELINE, LATER]
    folded.answer(applied=left, migration_repair={"applies": [BASELINE, LATER]})
    printed = await run(folded, settings_with(tmp_path))
    assert ["migration", "repair", "--status", "reverted", *FOLDED[3:], "--yes", "--remote"] in folded.called()
    assert "Nothing is pending." in printed


async def test_a_no_and_a_dry_run_leave_the_history_alone(folded: Project, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"^Nothing was changed\.$"):
        await run(folded, settings_with(tmp_path), ask=lambda _: False)
    printed = await run(folded, settings_with(tmp_path), dry_run=True)
    assert f"{LATER}_y.sql" in printed
    assert "Nothing was applied" in printed
    assert {tuple(call[:2]) for call in folded.called()} == {("migration", "list")}


async def test_a_part_of_what_the_baseline_holds_is_refused(folded: Project, tmp_path: Path) -> None:
    folded.answer(applied=list(FOLDED[:5]))
    with pytest.raises(MigrationError, match=rf"only 5 of the {len(FOLDED)} .*{FOLDED[5]}.*Before the baseline"):
        await run(folded, settings_with(tmp_path))
    assert {tuple(call[:2]) for call in folded.called()} == {("migration", "list")}


async def test_a_cli_that_says_something_else_is_an_error(project: Project, tmp_path: Path) -> None:
    (project.folder / "applied.json").write_text("{")
    with pytest.raises(MigrationError, match="cannot be asked"):
        await run(project, settings_with(tmp_path))


async def test_a_cli_that_is_not_there_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="make setup"):
        await migrate(settings_with(tmp_path), tmp_path, Console(io.StringIO()), node=Path("/n"), ask=None)


async def test_undoing_needs_an_address(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, SUPABASE_PROJECT_ID="abcdefghijklmnopqrst")
    with pytest.raises(MigrationError, match="SUPABASE_MIGRATION_DB_URL"):
        await undo_hosted(settings, tmp_path, Console(io.StringIO()), count=1, ask=None)


async def test_an_address_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, SUPABASE_MIGRATION_DB_URL="postgresql://postgres:secret-s@127.0.0.1:9/postgres")
    with pytest.raises(MigrationError) as error:
        await undo_hosted(settings, tmp_path, Console(io.StringIO()), count=1, ask=None)
    assert "cannot be reached" in str(error.value)
    assert "secret-s" not in str(error.value)


def test_an_address_comes_before_a_named_project(tmp_path: Path) -> None:
    both = settings_with(
        tmp_path, SUPABASE_PROJECT_ID="abcdefghijklmnopqrst", SUPABASE_MIGRATION_DB_URL="postgresql://p:s@h:5432/d"
    )
    assert target_of(both).flag == "--remote=postgresql://p@h:5432/d?sslmode=require"
    assert target_of(settings_with(tmp_path)).description == LINKED


@pytest.fixture(scope="module")
def small(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only="postgres,supabase")


async def applied(stack: RunningStack) -> list[str]:
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        rows = await connection.fetch("select version from supabase_migrations.schema_migrations order by 1")
    finally:
        await connection.close()
    return [row["version"] for row in rows]


async def test_the_embedded_database_goes_back_and_forth_while_it_runs(small: RunningStack) -> None:
    before = await applied(small)
    unasked = small.command("migrate", "--undo", "1")
    assert (unasked.returncode, "--yes" in unasked.stderr, await applied(small)) == (1, True, before)
    undone = small.command("migrate", "--undo", "2", "--yes")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert await applied(small) == before[:-2]
    assert small.command("migrate").returncode == 0
    assert await applied(small) == before


async def test_a_running_database_of_before_the_baseline_is_taken_over(small: RunningStack) -> None:
    before = await applied(small)
    owner = await asyncpg.connect(small.migration_db_url)
    try:
        await make_as_before_the_baseline(owner)
        assert await applied(small) == list(FOLDED)
        await owner.execute("delete from supabase_migrations.schema_migrations where version = $1", FOLDED[2])
        refused = small.command("migrate")
        assert (refused.returncode, f"the first that it lacks is {FOLDED[2]}" in refused.stderr) == (1, True), refused
        assert len(await applied(small)) == len(FOLDED) - 1
        await owner.execute("insert into supabase_migrations.schema_migrations (version) values ($1)", FOLDED[2])
        assert small.command("migrate").returncode == 0
        assert await applied(small) == before
    finally:
        await owner.close()


async def test_a_rollback_that_fails_leaves_its_migration_whole_and_those_before_it_undone(
    small: RunningStack, project: Project
) -> None:
    before, rollbacks = await applied(small), project.folder / "supabase" / "rollbacks"
    made = ("20990101000000", "20990102000000")
    (rollbacks / f"{made[0]}_broken.sql").write_text("create table public.half (id int); select 1 / 0;")
    (rollbacks / f"{made[1]}_fine.sql").write_text("select 1;")
    connection = await asyncpg.connect(small.migration_db_url)
    try:
        for version in made:
            await connection.execute("insert into supabase_migrations.schema_migrations (version) values ($1)", version)
        with pytest.raises(MigrationError, match=r"(?s)20990101000000_broken\.sql failed.*division by zero"):
            await undo(
                project.folder, small.migration_db_url, Console(io.StringIO()), description="it", count=2, ask=None
            )
        assert await applied(small) == [*before, made[0]]
        assert await connection.fetchval("select to_regclass('public.half')") is None
        with pytest.raises(MigrationError, match=f"No rollback of {before[-1]}"):
            await undo(
                project.folder, small.migration_db_url, Console(io.StringIO()), description="it", count=2, ask=None
            )
    finally:
        await connection.execute("delete from supabase_migrations.schema_migrations where version like '2099%'")
        await connection.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dry-run",),
        ("--include-all",),
        ("--target", "hosted", "--seed"),
        ("--target", "hosted", "--undo", "1", "--dry-run"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(small: RunningStack, arguments: tuple[str, ...]) -> None:
    done = small.command("migrate", *arguments)
    assert done.returncode == 1
    assert "--" in done.stderr

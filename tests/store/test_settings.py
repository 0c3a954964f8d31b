"""Settings: where they come from, what is refused, and what a refusal says."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentos.store import settings as module
from agentos.store.errors import ConfigInvalid
from agentos.store.settings import default_data_dir, load_settings


@pytest.fixture(autouse=True)
def no_agentos_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(module.PREFIX):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = load_settings()
    assert (settings.ttl_s, settings.beat_s, settings.sweep_s, settings.poll_s) == (15, 5, 1, 1)
    assert (settings.grace_s, settings.concurrency) == (25, 8)
    assert settings.dsn is None
    assert settings.evidence_roots is None
    assert (settings.log_format, settings.log_level) == ("auto", "info")
    assert settings.artifact_folder == settings.data_dir / "artifacts"


def test_the_environment_is_read_and_an_override_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_CONCURRENCY", "3")
    monkeypatch.setenv("AGENTOS_POLL_S", "0.25")
    settings = load_settings(concurrency=4)
    assert settings.concurrency == 4
    assert settings.poll_s == 0.25


def test_they_are_made_once_until_something_around_them_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = load_settings(poll_s=0.5)
    assert load_settings(poll_s=0.5) is made
    assert load_settings(poll_s=0.25).poll_s == 0.25
    monkeypatch.setenv("AGENTOS_CONCURRENCY", "3")
    assert load_settings(poll_s=0.5).concurrency == 3
    monkeypatch.setenv("AGENTOS_ARTIFACTS", "here")
    monkeypatch.chdir(tmp_path)
    assert load_settings().artifacts == str(tmp_path / "here")
    monkeypatch.chdir("/")
    assert load_settings().artifacts == "/here"


def test_an_override_that_is_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_CONCURRENCY", "3")
    assert load_settings(concurrency=None, dsn=None).concurrency == 3


def test_a_variable_set_to_nothing_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_DSN", "")
    monkeypatch.setenv("AGENTOS_TTL_S", "")
    assert load_settings() == load_settings(dsn=None, ttl_s=15)


def test_the_case_of_a_variable_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("agentos_ttl_s", "30")
    assert load_settings().ttl_s == 30


def test_a_variable_of_no_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_OF_MY_OWN", "x")
    assert load_settings() == load_settings(ttl_s=15)


def test_the_beat_follows_a_short_ttl_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_TTL_S", "1.5")
    assert load_settings().beat_s == 0.5
    assert load_settings(beat_s=0.1).beat_s == 0.1
    assert load_settings(ttl_s=60).beat_s == 5


def test_a_beat_over_a_third_of_the_ttl_is_refused_with_both_ways_out() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        load_settings(ttl_s=9, beat_s=5)
    for part in ("AGENTOS_BEAT_S is 5 s", "AGENTOS_TTL_S (9 s)", "at most 3", "at least 15"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AGENTOS_TTL_S", "soon"),
        ("AGENTOS_TTL_S", "0"),
        ("AGENTOS_TTL_S", "inf"),
        ("AGENTOS_BEAT_S", "-1"),
        ("AGENTOS_SWEEP_S", "nan"),
        ("AGENTOS_POLL_S", "1e9"),
        ("AGENTOS_GRACE_S", "-0.1"),
        ("AGENTOS_CONCURRENCY", "0"),
        ("AGENTOS_CONCURRENCY", "2.5"),
        ("AGENTOS_LOG_FORMAT", "xml"),
        ("AGENTOS_LOG_LEVEL", "loud"),
        ("AGENTOS_LLM_BASE_URL", "localhost:8080"),
        ("AGENTOS_DSN", "host=localhost"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_variable_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigInvalid) as refused:
        load_settings()
    assert refused.value.message.startswith(f"{variable}: ")
    assert refused.value.message.count("AGENTOS_") == 1
    assert variable in (refused.value.hint or "")


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigInvalid, match=r"AGENTOS_CONCURRENCY: .*; AGENTOS_LOG_LEVEL: "):
        load_settings(concurrency=-1, log_level="loud")


def test_an_override_that_is_no_setting_is_refused_with_the_settings_there_are() -> None:
    with pytest.raises(ConfigInvalid, match=r"no setting 'ttl'; the settings are dsn, .*ttl_s"):
        load_settings(ttl=3)


def test_secrets_show_in_no_repr_and_in_no_refusal() -> None:
    settings = load_settings(dsn="postgresql://u:canary@localhost/x", llm_api_key="canary")
    assert "canary" not in repr(settings)
    with pytest.raises(ConfigInvalid) as refused:
        load_settings(dsn="mysql://u:canary@localhost/x", llm_api_key=["canary"])
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_evidence_roots_are_split_like_path_and_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTOS_EVIDENCE_ROOTS", os.pathsep.join(["out", str(tmp_path / "b"), ""]))
    assert load_settings().evidence_roots == (tmp_path / "out", tmp_path / "b")


def test_the_artifact_store_is_a_folder_or_a_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(artifact_dir="a").artifact_store == str(tmp_path / "a")
    assert load_settings(artifacts="b").artifact_store == str(tmp_path / "b")
    assert load_settings(artifacts="file:///b").artifact_store == "/b"
    monkeypatch.setenv("AGENTOS_ARTIFACTS", "S3://bucket/prefix/")
    assert load_settings().artifact_store == "s3://bucket/prefix"


def test_urls_of_evidence_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTOS_EVIDENCE_URLS", "s3://one/, s3://two/below,")
    assert load_settings().evidence_urls == ("s3://one", "s3://two/below")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://host/file", "begins with http://, which is refused"),
        ("simplecache::s3://bucket", "begins with simplecache::s3://"),
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("s3://id:canary@bucket/key", "has credentials in it"),
        ("s3://bucket/a/../b", "'..'"),
        ("file://host/file", "no file:/// URL"),
    ],
)
def test_a_url_that_may_not_be_an_artifact_store_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ConfigInvalid, match="AGENTOS_ARTIFACTS") as refused:
        load_settings(artifacts=url)
    assert complaint in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_home_in_a_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(data_dir="~/pool").data_dir == tmp_path / "pool"
    assert load_settings(data_dir="~/pool", artifact_dir="~/a").artifact_folder == tmp_path / "a"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no root here")
def test_root_keeps_its_data_outside_any_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/agentos")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_data_dir().is_relative_to(tmp_path)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().ttl_s = 3

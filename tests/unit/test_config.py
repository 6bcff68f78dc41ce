from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from d365sync.config import find_file, load, parse
from d365sync.config_template import render
from d365sync.core.goals.guards import GuardName, GuardRules
from d365sync.core.goals.rollup import ClosedChild
from d365sync.core.schedule import in_words
from d365sync.errors import ConfigError
from d365sync.secretstore import resolve_secret

FOLDER = Path("/somewhere")
REMOTE = {
    "url": "https://contoso.crm4.dynamics.com/",
    "tenant_id": "00000000-0000-0000-0000-000000000000",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "client_secret": "env:SECRET",
}


def problems(document: dict[str, object], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(document, environ or {}, folder=FOLDER)
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_the_smallest_configuration_has_safe_defaults() -> None:
    config = parse({"dataverse": REMOTE}, {}, folder=FOLDER)
    assert config.writeback.mode == "plan"
    assert config.rollup.time_zone == "UTC"
    assert config.dataverse.url == "https://contoso.crm4.dynamics.com"
    assert config.database_url(config.storage.mirror) == "sqlite:////somewhere/mirror.db"


def test_every_fault_is_reported_at_once() -> None:
    document = {
        "dataverse": {**REMOTE, "url": "http://x", "client_id": "1"},
        "rollup": {"time_zone": "Mars/Olympus"},
        "writeback": {"mood": "plan"},
    }
    found = "; ".join(problems(document))
    for name in ("dataverse.url", "dataverse.client_id", "rollup.time_zone", "writeback.mood"):
        assert name in found


def test_unknown_keys_come_with_a_suggestion() -> None:
    assert problems({"dataverse": {**REMOTE, "tenantid": "x"}}) == (
        "unknown key dataverse.tenantid (did you mean dataverse.tenant_id?)",
    )
    assert problems({"dataverse": REMOTE, "storge": {}}) == ("unknown key storge (did you mean storage?)",)


def test_guards_take_their_thresholds_and_old_names_say_the_new_ones() -> None:
    config = parse({"dataverse": REMOTE}, {"D365SYNC_GUARDS__OFF": "jumps, totals"}, folder=FOLDER)
    assert config.guards.rules == GuardRules(off=frozenset({GuardName.JUMPS, GuardName.TOTALS}))
    wrong = {"dataverse": REMOTE, "pull": {"guard_rows": 10}, "guards": {"off": ["zeros"]}}
    moved, unknown = problems(wrong)
    assert moved == "pull.guard_rows is called guards.deletions_rows now"
    assert unknown.startswith("guards.off.0: input should be 'deletions', 'emptied'")


def test_a_missing_key_is_named() -> None:
    document = {name: value for name, value in REMOTE.items() if name != "tenant_id"}
    assert problems({"dataverse": document}) == ('dataverse: auth = "client_secret" needs the key tenant_id',)


def test_the_environment_wins_over_the_file() -> None:
    environ = {"D365SYNC_WRITEBACK__MODE": "override", "D365SYNC_DAEMON__EVERY": "2h", "D365SYNC_CONFIG": "ignored"}
    config = parse({"dataverse": REMOTE, "writeback": {"mode": "plan"}}, environ, folder=FOLDER)
    assert config.writeback.mode == "override"
    assert config.daemon.every == 7200


def test_a_mistyped_environment_variable_is_a_fault() -> None:
    assert "D365SYNC_WRITBACK__MODE" in problems({"dataverse": REMOTE}, {"D365SYNC_WRITBACK__MODE": "plan"})[0]


def test_columns_to_write_are_checked_all_at_once() -> None:
    columns = {"actualmoney": "new_actual", "percentage": "new_actual", "title": "new_title", "actualinteger": "title"}
    (fault,) = problems({"dataverse": REMOTE, "writeback": {"mode": "columns", "columns": columns}})
    for words in ("percentage names new_actual, and so does", "title is not a number", "actualinteger names 'title'"):
        assert words in fault
    (fault,) = problems({"dataverse": REMOTE, "writeback": {"mode": "columns", "columns": {}}})
    assert "needs the columns to write" in fault


def test_columns_to_write_may_come_from_the_environment() -> None:
    environ = {"D365SYNC_WRITEBACK__MODE": "columns", "D365SYNC_WRITEBACK__COLUMNS__ACTUALMONEY": "new_actual"}
    document = {"dataverse": REMOTE, "writeback": {"columns": {"percentage": "new_percent"}}}
    config = parse(document, environ, folder=FOLDER)
    assert config.writeback.columns == {"percentage": "new_percent", "actualmoney": "new_actual"}
    assert document["writeback"] == {"columns": {"percentage": "new_percent"}}


@pytest.mark.parametrize(
    ("auth", "missing"),
    [("client_secret", "client_secret"), ("certificate", "certificate"), ("device_code", "client_id")],
)
def test_each_way_in_says_what_it_needs(auth: str, missing: str) -> None:
    less = {"client_id": ""} if missing == "client_id" else {}
    assert missing in problems({"dataverse": {**REMOTE, "client_secret": "", "auth": auth, **less}})[0]


def test_a_managed_identity_needs_nothing_but_the_address() -> None:
    document = {"dataverse": {"url": REMOTE["url"], "auth": "managed_identity"}}
    assert parse(document, {}, folder=FOLDER).dataverse.client_id == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "https://contoso.crm.dynamics.cn", "cloud": "public"}, 'in the cloud "china"'),
        ({"url": "https://contoso.crm9.dynamics.com", "cloud": "gcc_high"}, 'in the cloud "gcc"'),
        ({"cloud": "moon"}, "dataverse.cloud"),
        ({"cloud": "public", "authority": "https://adfs.contoso.com/adfs"}, "exclude each other"),
        ({"api_version": "v8.2"}, "dataverse.api_version"),
    ],
)
def test_a_cloud_that_does_not_fit_the_host_is_a_fault(changes: dict[str, str], words: str) -> None:
    assert words in problems({"dataverse": {**REMOTE, **changes}})[0]


def test_a_fault_never_shows_a_value_that_may_be_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"dataverse": {**REMOTE, "client_secret": ["hunter2"]}}, {}, folder=FOLDER)
    assert "hunter2" not in str(caught.value)


def test_broken_toml_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "d365sync.toml"
    path.write_text("[dataverse\n")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(path, {})


def test_the_file_is_found_by_option_environment_or_folder(tmp_path: Path) -> None:
    here = tmp_path / "d365sync.toml"
    here.write_text("")
    other = tmp_path / "other.toml"
    other.write_text("")
    assert find_file(None, {}, tmp_path) == here
    assert find_file(None, {"D365SYNC_CONFIG": str(other)}, tmp_path) == other
    assert find_file(str(other), {"D365SYNC_CONFIG": str(here)}, tmp_path) == other
    with pytest.raises(ConfigError, match="there is no configuration file"):
        find_file(str(tmp_path / "gone.toml"), {}, tmp_path)


def test_secrets_by_reference(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    assert resolve_secret("env:NAME", {"NAME": "from-env"}, tmp_path) == "from-env"
    assert resolve_secret("file:secret", {}, tmp_path) == "from-file"
    assert resolve_secret("itself", {}, tmp_path) == "itself"


@pytest.mark.parametrize("reference", ["env:GONE", "file:gone", "keyring:a/b"])
def test_a_secret_that_is_not_there_is_said_by_name(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"GONE|gone|keyring"):
        resolve_secret(reference, {}, tmp_path)


def test_the_template_is_a_complete_configuration_and_the_sample_is_it() -> None:
    config = parse(tomllib.loads(render({})), {}, folder=FOLDER)
    assert config.rollup.closed_child is ClosedChild.STORED
    document = tomllib.loads(render({}))
    for section, keys in config.model_dump(exclude={"folder", "path", "environment"}).items():
        assert set(document[section]) == set(keys), section
    sample = Path(__file__).parents[2] / "config" / "d365sync.sample.toml"
    assert sample.read_text(encoding="utf-8") == render({}), "run `make docs`"


def test_the_templates_values_are_the_defaults() -> None:
    document = tomllib.loads(render({}))
    shown = parse(document, {}, folder=FOLDER).model_dump(exclude={"dataverse"})
    smallest = parse({"dataverse": REMOTE}, {}, folder=FOLDER).model_dump(exclude={"dataverse"})
    assert shown == smallest


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("fetchxml", "fiscal_years", [2100, 1900], "must be the first year and then the last"),
        ("fiscal", "template", "weekly", "fiscal.template: input should be 'organization', 'annual'"),
    ],
)
def test_a_value_that_would_mean_nothing_is_one_fault(section: str, key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match="has 1 fault: ") as caught:
        parse({"dataverse": REMOTE, section: {key: value}}, {}, folder=FOLDER)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("daemon", "words"),
    [
        ({"cron": "* * * *"}, "daemon.cron: must be a cron expression of five fields"),
        ({"every": "0s"}, "daemon.every"),
        ({"every": "1m", "jitter": "2m"}, "daemon: jitter cannot be longer than every"),
        ({"time_zone": "Mars/Olympus"}, "daemon.time_zone: must be an IANA time zone"),
        ({"ping": "hc-ping.com/1"}, "daemon.ping: must be an address"),
        ({"at_once": 0}, "daemon.at_once"),
        ({"listen": "8365"}, "daemon.listen: must be a host and a port"),
    ],
)
def test_a_schedule_that_cannot_be_is_a_fault(daemon: dict[str, object], words: str) -> None:
    assert words in problems({"dataverse": REMOTE, "daemon": daemon})[0]


def test_cron_goes_before_the_interval_and_is_in_the_zone_of_goal_days() -> None:
    document = {"dataverse": REMOTE, "rollup": {"time_zone": "Asia/Tehran"}, "daemon": {"cron": "0 2 * * *"}}
    config = parse(document, {}, folder=FOLDER)
    schedule = config.daemon.schedule("default", config.rollup.zone)
    assert in_words(schedule) == "at 02:00 every day (Asia/Tehran)"


def test_every_secret_is_named_by_its_key(tmp_path: Path) -> None:
    document = {
        "dataverse": REMOTE,
        "health": {"token": "systemd:metrics"},
        "telemetry": {"endpoint": "https://otlp.example.org", "headers": {"Authorization": "env:OTLP"}},
    }
    found = parse(document, {}, folder=tmp_path).secret_references()
    assert found["health.token"] == "systemd:metrics"
    assert found["telemetry.headers.Authorization"] == "env:OTLP"
    assert "dataverse.certificate_password" not in found


@pytest.mark.parametrize("host", ["http://a", "a:80", "", "a/b"])
def test_hosts_are_names(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="host names"):
        parse({"dataverse": REMOTE, "health": {"hosts": [host]}}, {}, folder=tmp_path)

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from d365sync.config import Config
from d365sync.config_template import render
from d365sync.errors import ConfigError
from d365sync.service.environments import chosen, load_all, load_one, parse_all

FOLDER = Path("/somewhere")
BASE = {
    "tenant_id": "00000000-0000-0000-0000-000000000000",
    "client_id": "00000000-0000-0000-0000-000000000000",
    "client_secret": "env:SECRET",
}
EAST, WEST = ({"dataverse": {"url": f"https://{name}.crm4.dynamics.com"}} for name in ("east", "west"))
TWO: dict[str, Any] = {"dataverse": BASE, "environments": {"east": EAST, "west": WEST}}


def read(document: dict[str, Any], **environ: str) -> dict[str, Config]:
    return parse_all(document, environ, folder=FOLDER)


def problems(document: dict[str, Any], **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(document, **environ)
    return caught.value.problems


def with_(name: str, **sections: Any) -> dict[str, Any]:
    environments = {**TWO["environments"], name: {**TWO["environments"][name], **sections}}
    return {**TWO, "environments": environments}


def test_a_file_without_environments_has_one() -> None:
    document = {"dataverse": {**BASE, **EAST["dataverse"]}}
    (name, config), *others = read(document).items()
    assert (name, others, config.storage.mirror) == ("default", [], "sqlite:///mirror.db")
    assert read({**document, "environments": {}}) == {"default": config}


def test_an_environment_goes_over_the_file_key_by_key_and_has_databases_of_its_own() -> None:
    configs = read({**with_("east", rollup={"time_zone": "Asia/Tehran"}), "rollup": {"closed_child": "stored"}})
    assert list(configs) == ["east", "west"]
    assert configs["east"].dataverse.tenant_id == BASE["tenant_id"]
    assert [one.rollup.time_zone for one in configs.values()] == ["Asia/Tehran", "UTC"]
    assert configs["west"].database_url(configs["west"].storage.journal) == "sqlite:////somewhere/west/journal.db"
    assert configs["east"].dataverse.sign_in_cache_file == "east/sign-in.cache"


def test_the_written_configuration_can_be_given_environments() -> None:
    text = render({}) + '\n[environments.a.writeback]\nmode = "override"\n[environments.b]\n'
    configs = read(tomllib.loads(text))
    assert [one.storage.mirror for one in configs.values()] == ["sqlite:///a/mirror.db", "sqlite:///b/mirror.db"]


def test_the_more_specific_goes_first() -> None:
    document = {**with_("east", daemon={"every": "2m"}), "daemon": {"every": "1m"}}
    variables = {"D365SYNC_DAEMON__EVERY": "3m", "D365SYNC_ENVIRONMENTS__WEST__DAEMON__EVERY": "4m"}
    assert [one.daemon.every for one in read(document).values()] == [120, 60]
    assert [one.daemon.every for one in read(document, D365SYNC_DAEMON__EVERY="3m").values()] == [120, 180]
    assert [one.daemon.every for one in read(document, **variables).values()] == [120, 240]


def test_a_variable_names_an_environment_with_a_hyphen_by_an_underscore() -> None:
    document = {"dataverse": BASE, "environments": {"north-east": EAST}}
    variable = {"D365SYNC_ENVIRONMENTS__NORTH_EAST__WRITEBACK__MODE": "override"}
    assert read(document, **variable)["north-east"].writeback.mode == "override"


def test_a_placeholder_stands_for_the_name() -> None:
    document = {
        "dataverse": {**BASE, "url": "https://{environment}.crm4.dynamics.com", "client_secret": "file:{environment}"},
        "storage": {
            "mirror": "postgresql+psycopg://h/{environment}",
            "journal": "postgresql+psycopg://h/{environment}",
        },
        "daemon": {"ping": "https://hc-ping.com/key/{environment}"},
        "environments": {"east": {}, "west": {}},
    }
    west = read(document)["west"]
    assert west.dataverse.url == "https://west.crm4.dynamics.com"
    assert west.dataverse.client_secret == "file:west"
    assert west.storage.journal == "postgresql+psycopg://h/west"
    assert west.daemon.ping == "https://hc-ping.com/key/west"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("storage", "mirror", "postgresql+psycopg://host/one"),
        ("storage", "journal", "sqlite:///one.db"),
        ("daemon", "ping", "https://hc-ping.com/abc"),
    ],
)
def test_what_two_environments_may_not_share_is_a_fault(section: str, key: str, value: str) -> None:
    (fault,) = problems({**TWO, section: {key: value}})
    assert f"{section}.{key} of environment west is {section}.{key} of environment east" in fault
    assert "{environment}" in fault


def test_a_mirror_is_not_the_journal_of_another() -> None:
    document = with_("west", storage={"mirror": "sqlite:////somewhere/east/journal.db"})
    assert "storage.mirror of environment west is storage.journal of environment east" in problems(document)[0]


def test_every_fault_of_every_environment_is_told_and_what_is_the_files_once() -> None:
    document = {**with_("east", storge={}, writeback={"mode": "plam"}), "pull": {"tables": 0}}
    found = problems(document)
    assert len(found) == 3
    assert found[0].startswith("pull.tables")
    assert any(one.startswith("environment east: unknown key storge (did you mean storage?)") for one in found)
    assert any(one.startswith("environment east: writeback.mode") for one in found)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**TWO, "environments": []}, "must hold a table for each environment"),
        ({**TWO, "environments": {"east": 1}}, "environment east must be a table of sections"),
        ({**TWO, "environments": {"../etc": {}}}, "a name has small letters"),
        ({**TWO, "environments": {"a__b": {}}}, "a name has small letters"),
        (with_("east", daemon={"listen": "127.0.0.1:1"}), "daemon.listen is one for the whole service"),
    ],
)
def test_environments_that_cannot_be_are_faults(document: dict[str, Any], words: str) -> None:
    assert words in "; ".join(problems(document))


def test_a_variable_for_an_unknown_environment_is_a_fault_with_a_suggestion() -> None:
    (fault,) = problems(TWO, D365SYNC_ENVIRONMENTS__EASTT__DAEMON__EVERY="1m")
    assert fault.startswith("D365SYNC_ENVIRONMENTS__EASTT__DAEMON__EVERY: there is no environment eastt")
    assert "(did you mean east?); the file has 2 environments" in fault
    assert "names no section and key" in problems(TWO, D365SYNC_ENVIRONMENTS__EAST__DAEMON="1m")[0]
    (fault,) = problems(TWO, D365SYNC_ENVIRONMENTS__EAST__DAEMON__AT_ONCE="1")
    assert "daemon.at_once is one for the whole service" in fault


def test_a_command_works_on_the_environment_named_or_the_only_one(tmp_path: Path) -> None:
    configs = read(TWO)
    assert chosen(configs, "west") is configs["west"]
    with pytest.raises(ConfigError, match="several environments: east, west"):
        chosen(configs, None)
    with pytest.raises(ConfigError, match=r"no environment wset \(did you mean west\?\)"):
        chosen(configs, "wset")
    (tmp_path / "d365sync.toml").write_text('[dataverse]\nauth = "managed_identity"\nurl = "https://x.example"\n')
    assert load_one(tmp_path / "d365sync.toml", {}).dataverse.url == "https://x.example"
    assert list(load_all(tmp_path / "d365sync.toml", {})) == ["default"]


def test_commands_to_type_name_the_environment_where_there_are_several() -> None:
    assert read(TWO)["west"].command("sync --accept 3") == "d365sync --environment west sync --accept 3"
    alone = {"dataverse": {**BASE, **EAST["dataverse"]}}
    assert read(alone)["default"].command("sync") == "d365sync sync"
    assert read({"dataverse": BASE, "environments": {"east": EAST}})["east"].command("sync") == "d365sync sync"

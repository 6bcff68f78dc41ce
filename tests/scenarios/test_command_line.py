"""The commands end to end: output, exit codes, errors in one sentence, and nothing secret anywhere."""

from __future__ import annotations

import copy
import csv
import io
import json
import socket
from pathlib import Path

import pytest

from tests import canary
from tests.golden.casebook import write_org
from tests.scenarios.conftest import CASES, Admin, Done, initialise, run, served
from tests.scenarios.processes import kept_installed, run_installed

TRACEBACK = "Traceback"


def assert_one_sentence(done: Done, code: int, *words: str) -> None:
    assert done.code == code, done
    first = done.err.strip().splitlines()[0]
    assert first.startswith("d365sync: "), done.err
    for word in words:
        assert word in done.err
    assert TRACEBACK not in done.err
    assert done.out == ""


def test_every_command_starts_on_its_own(tmp_path: Path) -> None:
    """Installed, as a shell runs it; what it says and writes is shown below."""
    write_org(CASES["tree"], tmp_path / "org")
    with served(tmp_path / "org", keep=kept_installed) as remote:
        admin = initialise(tmp_path / "admin", remote, way=run_installed)
        line = ("doctor", "plan", "sync", "goals list", "goals lint", "explain North", "status", "parity")
        line += ("probe --yes", "completion bash", "--help", "--version")
        for command in line:
            done = admin.installed(*command.split())
            assert (done.code, TRACEBACK in done.err) == (0, False), (command, done)
        for command in ("apply gone.json", "undo 99"):
            assert_one_sentence(admin.installed(*command.split()), 2, "mend: ")


def test_the_line_from_init_to_explain(admin: Admin) -> None:
    doctor = admin.run("doctor", "--json")
    assert doctor.code == 0, doctor.out + doctor.err
    checks = doctor.document["checks"]
    assert {"clock", "write goals"} < {check["name"] for check in checks}
    assert {(check["verdict"] == "FAIL", check["exit_code"]) for check in checks} == {(False, 0)}

    plan = admin.run("plan", "--json")
    assert (plan.code, len(plan.document["goals"])) == (0, 5)
    dry = admin.run("sync", "--dry-run")
    assert "nothing was written: this was a dry run" in dry.out
    assert admin.run("plan", "--json").document["goals"] == plan.document["goals"]

    first = admin.run("sync")
    assert first.code == 0, first.err
    assert "wrote 5 of 5 goals" in first.out
    second = admin.run("sync", "--json")
    assert second.document["counts"]["planned_goals"] == 0
    assert second.document["counts"]["recomputed_goals"] == 0
    assert second.document["written"] == []

    (company,) = [goal for goal in admin.run("goals", "list", "--json").document["goals"] if goal["title"] == "Company"]
    assert [company[name] for name in ("native", "held", "ours", "attainment")] == [None, 305.0001, 305.0001, 0.305]

    explained = admin.run("explain", "north", "--json").document
    (actual,) = [column for column in explained["columns"] if column["column"] == "actualmoney"]
    assert [record["name"] for record in actual["records"]] == ["3"]
    assert {child["title"]: child["amount"] for child in actual["children"]} == {"Ann": 100.25, "Bob": 200.5}
    assert (
        actual["own"] + sum(child["amount"] for child in actual["children"]) == actual["total"] == actual["ours"] == 301
    )
    assert '<condition attribute="statecode" operator="eq" value="1"/>' in actual["fetchxml"]
    assert actual["records"][0]["because"][1] == "owner Nina"
    why = admin.run("explain", "north", "--why-not", "1", "--json").document
    assert (why["counts"], why["columns"][0]["summary"]) == (False, "owner Ann, not Nina")

    status = admin.run("status", "--json").document
    assert status["goals"] == {"different": 0, "right": 5}
    assert [one["outcome"] for one in status["runs"]] == ["ok"] * 5


def test_for_people_too(admin: Admin) -> None:
    admin.run("sync")
    assert "Company" in admin.run("goals", "list").out
    assert " 305 " in admin.run("goals", "list").out
    checked = admin.run("goals", "lint")
    assert (checked.code, checked.out.splitlines()[-1]) == (0, "5 goals, no problems")
    assert admin.run("goals", "lint", "--json").document["goals"] == 5
    explained = admin.run("explain", "North", "--query").out
    assert "1 record gives 0.25, 2 children give 300.75; Dataverse held 301" in explained
    assert "<link-entity" not in explained
    assert "counts: won (statecode 1); owner Nina; date from 2026-10-01 to 2026-12-31" in explained
    assert "records of Ann:" in admin.run("explain", "Company", "--all").out
    assert "... and 1 more record (--limit" in admin.run("explain", "North", "--limit", "0").out
    why = admin.run("explain", "north", "--why-not", "1").out
    assert "does not count: owner Ann, not Nina" in why
    assert "counts for the goals below: Ann" in why
    rows = list(csv.DictReader(io.StringIO(admin.run("explain", "North", "--csv").out)))
    assert sum(float(row["counts_for"]) for row in rows if row["column"] == "actualmoney") == 301
    status = admin.run("status").out
    assert "5 right" in status
    assert "opportunity" in status


def test_what_only_reads_the_mirror_needs_no_secret_and_no_network(admin: Admin) -> None:
    admin.run("sync")
    (admin.folder / "secret").unlink()
    for arguments in (("goals", "list"), ("explain", "North"), ("status",)):
        assert admin.run(*arguments, D365SYNC_DATAVERSE__CA_BUNDLE="gone.pem").code == 0


def test_mode_plan_writes_nothing(tmp_path: Path) -> None:
    write_org(CASES["tree"], tmp_path / "org")
    with served(tmp_path / "org") as remote:
        admin = initialise(tmp_path / "admin", remote, mode="plan")
        done = admin.run("sync", FORCE_COLOR="1", NO_COLOR="1")
        assert 'writeback.mode is "plan"' in done.out
        assert "pulled rows" in done.err
        assert "writing" not in done.err
        assert len(admin.run("plan", "--json").document["goals"]) == 5


def test_a_plan_can_be_saved(admin: Admin) -> None:
    assert admin.run("plan", "--output", "plan.json").code == 0
    assert (admin.folder / "plan.json").read_text(encoding="utf-8").startswith("{")
    assert_one_sentence(admin.run("plan", "--output", "gone/plan.json"), 2, "cannot be saved")


def test_a_wrong_secret_is_one_sentence_and_exit_6(admin: Admin) -> None:
    (admin.folder / "secret").write_text("hunter2-not-the-secret", encoding="utf-8")
    done = admin.run("sync")
    assert_one_sentence(done, 6, "the client secret is wrong", "AADSTS7000215", "mend:")
    assert "hunter2" not in done.err
    assert admin.run("sync", "--json").document["error"]["exit_code"] == 6


def test_a_missing_secret_is_a_fault_of_the_configuration(admin: Admin) -> None:
    (admin.folder / "secret").unlink()
    assert_one_sentence(admin.run("sync"), 2, "secret")
    assert not (admin.folder / "mirror.db").exists()


def test_an_unreachable_host_is_temporary_and_exit_5(admin: Admin) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    nowhere = f"https://localhost:{port}"
    environment = {"D365SYNC_DATAVERSE__URL": nowhere, "D365SYNC_DATAVERSE__AUTHORITY": f"{nowhere}/x"}
    assert_one_sentence(admin.run("sync", **environment), 5, f"localhost:{port}", "refused", "again later")


def test_a_server_that_is_not_trusted_is_not_talked_to(admin: Admin) -> None:
    assert_one_sentence(
        admin.run("sync", D365SYNC_DATAVERSE__CA_BUNDLE=""), 1, "unable to get local issuer certificate", "ca_bundle"
    )


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ('match = "GET */opportunities*"\nevery = 1\nstatus = 403\ncode = "0x80040220"', 6, "GET opportunities"),
        ('match = "PATCH */goals*"\nevery = 1\nstatus = 403\ncode = "0x80040220"', 6, "PATCH goals"),
    ],
)
def test_a_missing_privilege_is_exit_6(tmp_path: Path, fault: str, code: int, words: str) -> None:
    write_org(CASES["tree"], tmp_path / "org")
    (tmp_path / "faults.toml").write_text(f"[[fault]]\n{fault}\n", encoding="utf-8")
    with served(tmp_path / "org", "--faults", str(tmp_path / "faults.toml")) as remote:
        admin = initialise(tmp_path / "admin", remote)
        assert_one_sentence(admin.run("sync"), code, words, "security role")
        doctor = admin.run("doctor")
        assert doctor.code == 6
        assert "FAIL" in doctor.out


def test_doctor_warns_and_strictly_fails(admin: Admin) -> None:
    (admin.folder / "secret").chmod(0o644)
    done = admin.run("doctor")
    assert (done.code, "WARN client secret file" in done.out) == (0, True)
    assert "what each line means: docs/doctor.md" in done.out
    assert "FAIL" not in done.out
    strict = admin.run("doctor", "--strict", "--json")
    assert strict.code == 1
    assert {check["topic"] for check in strict.document["checks"]} > {"files", "DNS", "TLS", "token", "fiscal year"}


def test_a_malformed_configuration_lists_every_fault(admin: Admin) -> None:
    path = admin.folder / "d365sync.toml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("[rollup]", "[rolup]").replace('mode = "override"', 'mode = "x"')
    )
    assert_one_sentence(admin.run("sync"), 2, "2 faults", "rolup (did you mean rollup?)", "writeback.mode")
    assert not (admin.folder / "mirror.db").exists()


def test_no_configuration_says_how_to_make_one(tmp_path: Path) -> None:
    assert_one_sentence(run(tmp_path, "sync"), 2, "d365sync init")


def test_a_malformed_org_folder_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    write_org(CASES["tree"], tmp_path / "org")
    goals = tmp_path / "org" / "goals.json"
    goals.write_text(
        goals.read_text(encoding="utf-8").replace('"targetmoney": 1000', '"targetmoney": "much"'), encoding="utf-8"
    )
    assert_one_sentence(
        run(tmp_path, "emulator", "serve", "--org", "org", "--port", "0"), 2, "goals.json", "targetmoney"
    )
    assert_one_sentence(run(tmp_path, "emulator", "serve", "--org", "gone", "--port", "0"), 2, "gone")


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    write_org(CASES["tree"], tmp_path / "org")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "emulator", "serve", "--org", "org", "--port", port)
    assert_one_sentence(done, 2, f"port {port} cannot be served", "--port")


def test_init_does_not_replace_a_file_unasked(admin: Admin) -> None:
    assert_one_sentence(admin.run("init", "--non-interactive"), 2, "exists already", "--force")


def test_an_unknown_goal_is_said_so(admin: Admin) -> None:
    admin.run("sync")
    assert_one_sentence(admin.run("explain", "Nobody"), 2, "there is no goal 'Nobody'")
    assert_one_sentence(admin.run("explain", "North", "--double", "--why-not", "1"), 2, "exclude each other")
    assert_one_sentence(admin.run("explain", "North", "--why-not", "nobody's"), 2, "no record 'nobody's' among the")
    unknown = admin.run("explain", "North", "--why-not", "nobody's", "--json")
    assert (unknown.code, unknown.document["error"]["type"]) == (2, "UsageError")


def test_lists_before_the_first_sync_say_what_to_do(admin: Admin) -> None:
    assert_one_sentence(admin.run("goals", "list"), 2, "nothing has been pulled yet", "d365sync sync")
    assert admin.run("status").code == 0


def test_nothing_secret_shows_anywhere_also_where_things_fail(admin: Admin) -> None:
    """Each command's output is searched as it ends, the folder after the test; see tests/canary.py."""
    for arguments in (("sync", "--json"), ("doctor", "--json"), ("status", "--json"), ("sync", "--full")):
        assert admin.run("--debug", "-v", *arguments).code in (0, 3)
    failing = (
        {"D365SYNC_DATAVERSE__URL": "https://localhost:1"},
        {"D365SYNC_DATAVERSE__CLIENT_SECRET": canary.plant("a-secret-that-is-wrong", admin.folder)},
        {"D365SYNC_DATAVERSE__CLIENT_ID": "00000000-0000-0000-0000-000000000001"},
        {"D365SYNC_DATAVERSE__CA_BUNDLE": "secret"},
        {"D365SYNC_STORAGE__MIRROR": "sqlite:////proc/none/mirror.db"},
    )
    for environment in failing:
        budget = {"D365SYNC_DATAVERSE__RETRY_BUDGET": "0s"}
        assert admin.run("--debug", "-v", "sync", **environment, **budget).code not in (0, 3), environment


def test_the_canary_sings(tmp_path: Path) -> None:
    canary.plant("a-secret-of-ours", tmp_path)
    with pytest.raises(AssertionError):
        canary.assert_silent("signing in with a-secret-of-ours")
    with pytest.raises(AssertionError):
        canary.assert_silent("Authorization: Bearer eyJhbGciOiJIUzI1NiIsIn.eyJhdWQiOiJodHRwczovL2.x")
    (tmp_path / "mirror.db").write_bytes(b"\x00a-secret-of-ours\x00")
    (tmp_path / "secret").write_bytes(b"a-secret-of-ours")
    assert canary.harvest() == [str(tmp_path / "mirror.db")]


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("sync", "--help"), ("emulator", "serve", "--help")]
)
def test_help_and_version_need_no_configuration(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path, *arguments).code == 0


def test_parity_of_goals_the_platform_never_rolled_up(admin: Admin) -> None:
    admin.run("sync", "--dry-run")
    done = admin.run("parity", "--all")
    assert (done.code, "0 numbers compared: none" in done.out) == (0, True)
    assert "not compared: 'Ann': never rolled up by the platform" in done.out


def test_parity_tells_an_unknown_difference_by_its_exit_code(tmp_path: Path) -> None:
    case = copy.deepcopy(CASES["tree"])
    write_org(case, tmp_path / "org")
    path = tmp_path / "org" / "goals.json"
    goals = json.loads(path.read_text(encoding="utf-8"))
    for goal in goals:
        goal |= {"lastrolledupdate": "2026-11-20T09:00:00Z", "actualmoney": 12.34}
    path.write_text(json.dumps(goals), encoding="utf-8")
    with served(tmp_path / "org") as remote:
        admin = initialise(tmp_path / "admin", remote, mode="plan")
        admin.run("sync")
        done = admin.run("parity", "--json")
        assert done.code == 3
        assert done.document["unexplained"] == done.document["counts"]["unknown"] > 0
        ann = next(one for one in done.document["numbers"] if one["title"] == "Ann")
        assert (ann["class"], ann["native"], ann["ours"], ann["explained"]) == ("unknown", 12.34, 100.25, False)
        narrow, wide = admin.run("parity"), admin.run("parity", "--all")
        assert "unknown: nothing that is known accounts for it" in narrow.out
        assert "equal" in wide.out


def test_probe_asks_before_it_makes_anything(admin: Admin) -> None:
    asked = admin.run("probe", "--create-records")
    assert asked.code == 2
    assert "two goals whose titles begin with 'd365sync probe'" in asked.out
    assert "4 open opportunities" in asked.out
    admin.run("sync", "--dry-run")
    before = admin.run("goals", "list", "--json").document
    done = admin.run("probe", "--yes", "--create-records")
    assert (done.code, "18 holds, 0 differs, 0 not told" in done.out) == (0, True), done.err
    admin.run("sync", "--dry-run")
    assert admin.run("goals", "list", "--json").document == before


def test_probe_keeps_what_it_made_when_asked(admin: Admin) -> None:
    done = admin.run("probe", "--yes", "--keep", "--json")
    assert done.code == 0
    assert [one["what"] for one in done.document["left"]] == ["parent goal", "child goal"]
    assert "kept: child goal: goals(" in done.err
    admin.run("sync", "--dry-run")
    titles = [goal["title"] for goal in admin.run("goals", "list", "--all", "--json").document["goals"]]
    assert sum(title.startswith("d365sync probe 2026-11-20 09:00Z") for title in titles) == 2


def test_a_mistyped_command_or_option_is_exit_2(tmp_path: Path) -> None:
    assert run(tmp_path, "snyc").code == 2
    assert run(tmp_path, "sync", "--drry-run").code == 2
    assert run(tmp_path, "--now", "soon", "sync").code == 2

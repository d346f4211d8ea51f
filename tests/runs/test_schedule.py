"""Lines for cron and systemd: when they start, and that they work from an empty environment."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mae_cli.errors import ConfigError
from mae_cli.runs.schedule import Schedule, cron_fields, on_calendar, schedule
from tests.support import ROOT, here, write_sums


def lines(run_dir: str = "/runs/a", *options: str, at: str = "0 22 * * *", **environment: str) -> Schedule:
    return schedule(
        Path(run_dir),
        ["/r/x.yaml", "--run-dir", run_dir, *options],
        at=at,
        python="/venv/bin/python",
        folder=Path("/home/me/my work"),
        environment=environment,
    )


@pytest.mark.parametrize(
    ("at", "calendar"),
    [
        ("0 22 * * *", ["*-*-* 22:0:00"]),
        ("*/30 * * * *", ["*-*-* *:0/30:00"]),
        ("15,45 8-18 * * 1-5", ["Mon,Tue,Wed,Thu,Fri *-*-* 8..18:15,45:00"]),
        ("0 3 * * 0", ["Sun *-*-* 3:0:00"]),
        ("0 3 * * 7", ["Sun *-*-* 3:0:00"]),
        ("0 3 * * sat,SUN", ["Sat,Sun *-*-* 3:0:00"]),
        ("0 3 1 jan *", ["*-1-1 3:0:00"]),
        ("0 3 */2 * *", ["*-*-1/2 3:0:00"]),
        ("0 0-23/2 * 1,6 *", ["*-1,6-* 0..23/2:0:00"]),
        ("0 22 13 * 5", ["*-*-13 22:0:00", "Fri *-*-* 22:0:00"]),  # cron takes either
        ("@daily", ["*-*-* 0:0:00"]),
        ("@Weekly", ["Sun *-*-* 0:0:00"]),
        ("0 22 * * */2", ["Tue,Thu,Sat,Sun *-*-* 22:0:00"]),
    ],
)
def test_a_schedule_means_the_same_to_both(at: str, calendar: list[str]) -> None:
    assert on_calendar(cron_fields(at)) == calendar


@pytest.mark.parametrize(
    "at",
    ["", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8", "a * * * *",
     "*/0 * * * *", "5-1 * * * *", "1-2-3 * * * *", "0 0 * mon *", "-1 * * * *", "@reboot", "22:00", "1,, * * * *"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(at: str) -> None:
    with pytest.raises(ConfigError, match="--at "):
        cron_fields(at)


def test_a_percent_sign_is_escaped_for_each(tmp_path: Path) -> None:
    found = lines("/runs/100% $HOME")

    assert found.crontab is not None
    assert "%" not in found.crontab.replace("\\%", "")
    assert "'/runs/100\\% $HOME'" in found.crontab
    assert '"/runs/100%% $$HOME"' in found.service
    assert "StandardOutput=append:/runs/100%% $HOME.log" in found.service


def test_variables_that_matter_are_passed_and_keys_never() -> None:
    found = lines(HF_HOME="/big/hf cache", OPENAI_API_KEY="sk-1", PATH="/x", CUDA_VISIBLE_DEVICES="1", PYTHONPATH="")

    assert found.command.startswith(
        "env 'HF_HOME=/big/hf cache' CUDA_VISIBLE_DEVICES=1 /venv/bin/python -m mae_cli run"
    )
    assert 'Environment="HF_HOME=/big/hf cache"\n' in found.service
    assert "sk-1" not in f"{found}"


def test_a_line_that_cron_would_cut_off_is_not_given() -> None:
    found = lines("/runs/a", "--set", "x" * 900)

    assert found.crontab is None
    assert "x" * 900 in found.service


def test_a_line_break_fits_into_no_line() -> None:
    with pytest.raises(ConfigError, match="cannot hold a line break"):
        lines("/runs/a\nb")


def test_a_systemd_start_is_no_failure_where_another_works_or_a_budget_is_reached() -> None:
    found = lines("/runs/a")

    assert "SuccessExitStatus=5 6\n" in found.service
    assert "KillMode=mixed\n" in found.service  # workers end with their parent, in order
    assert found.unit == "mae-a"
    assert "Persistent=true" in found.timer


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert here("cron", "--json", *arguments) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def by_cron(crontab: str) -> subprocess.CompletedProcess[bytes]:
    """What cron does with a line: the fields away, percent signs, /bin/sh, an environment of four variables."""
    text = crontab.split(maxsplit=5)[5].replace("\\%", "%")
    environment = {"HOME": "/", "LOGNAME": "me", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return subprocess.run(["/bin/sh", "-c", text], env=environment, cwd="/", capture_output=True, check=False)


def test_the_printed_line_works_from_crons_environment_and_mails_failures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "my 100% work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    write_sums(folder / "seeds.jsonl", 4)
    (folder / "r.yaml").write_text(
        "engine: scripted\nseeds: seeds.jsonl\npipeline: [propose]\npropose: {num_problems: 2}\n"
    )
    told = printed(capsys, "r.yaml", "--run-dir", "runs/a b", "--at", "0 22 * * *", "--", "--max-hours", "1")

    result = by_cron(told["crontab"])

    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    log = folder / "runs" / "a b.log"
    assert json.loads(log.read_text().splitlines()[-1])["state"] == "finished"
    assert (folder / "runs" / "a b" / "round-001" / "1_problems.jsonl").exists()
    # A failure is mailed; a used-up budget is not.
    budget = printed(capsys, "r.yaml", "--run-dir", "runs/a b", "--", "--rounds", "2", "--max-tokens", "1")
    assert by_cron(budget["crontab"]).stdout == b""
    assert json.loads(log.read_text().splitlines()[-2])["state"] == "budget"
    (folder / "r.yaml").write_text("engine: nonsense\n")
    assert b"mae run ended on 2" in by_cron(told["crontab"]).stdout


def test_options_are_those_of_mae_run_and_the_text_is_a_crontab(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here("cron", "quickstart", "--run-dir", tmp_path / "a", "--", "--bogus", "1") == 2
    assert here("cron", "quickstart", "--run-dir", tmp_path / "a", "--at", "noon") == 2
    assert here("cron", "nothing", "--run-dir", tmp_path / "a") == 2
    capsys.readouterr()

    assert here("cron", "quickstart", "--run-dir", tmp_path / "a") == 0
    text = capsys.readouterr().out.splitlines()
    entries = [line for line in text if not line.startswith("#")]
    assert len(entries) == 1
    assert str(ROOT / "recipes" / "quickstart.yaml") in shlex.split(entries[0].replace("\\%", "%"))
    assert here("cron", "quickstart", "--run-dir", tmp_path / "a", "--only", "systemd") == 0
    assert "\n[Service]\n" in capsys.readouterr().out

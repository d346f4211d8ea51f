from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support import a_row, child_environment, here, mae, paused, start, wait_until, write_rows, write_sums

COMMANDS = [
    (),
    ("propose",),
    ("solve",),
    ("judge",),
    ("calibrate",),
    ("filter",),
    ("finetune",),
    ("eval",),
    ("run",),
    ("diff",),
    ("list",),
    ("export",),
    ("trace",),
    ("review",),
    ("data",),
    ("models",),
]
SUBCOMMANDS = [
    *(("data", name) for name in ("make", "import", "pools", "merge", "features")),
    *(("models", name) for name in ("list", "get")),
]
HEAVY = ("torch", "transformers", "datasets", "peft", "accelerate", "pandas", "numpy")
SOLVE = ("--engine", "scripted", "--rollouts-per-problem", 2)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    return write_sums(tmp_path / "problems.jsonl")


def packages_after(code: str, folder: Path, **environment: str) -> tuple[set[str], int, list[str]]:
    """Packages that a new interpreter holds after this code, its `code`, and what it wrote to standard error."""
    told = "\nprint('loaded', *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\nsys.exit(code)"
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\ncode = 0\n{code}{told}"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=child_environment(**environment),
        check=False,
    )
    *lines, last = result.stderr.splitlines()
    assert last.startswith("loaded "), result.stderr
    return set(last.split()[1:]), result.returncode, lines


def modules_loaded_by(arguments: list[str], folder: Path) -> set[str]:
    found, code, lines = packages_after(f"from mae_cli.cli.app import run_app\ncode = run_app({arguments!r})", folder)
    assert code == 0, lines
    return found


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    return packages_after("import typer", tmp_path_factory.mktemp("bare"))[0]


# How long it takes is measured by `make bench WORKLOAD=help`.
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda value: "-".join(("mae", *value)))
def test_help_loads_no_package_but_typer_and_msgspec(
    arguments: tuple[str, ...], bare_packages: set[str], tmp_path: Path
) -> None:
    more = modules_loaded_by([*arguments, "--help"], tmp_path) - bare_packages - sys.stdlib_module_names

    assert more <= {"mae_cli", "msgspec", "typing_extensions"}


@pytest.mark.parametrize("arguments", [*COMMANDS[:13], *SUBCOMMANDS], ids=lambda value: "-".join(("mae", *value)))
def test_help_loads_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert not modules_loaded_by([*arguments, "--help"], tmp_path) & set(HEAVY)


def test_the_scripted_stages_load_nothing_heavy(problems: Path, tmp_path: Path) -> None:
    engine = ["--engine", "scripted"]
    chain = [
        ["propose", "problems.jsonl", "-o", "1.jsonl", "--num-problems", "4", *engine],
        ["solve", "1.jsonl", "-o", "2.jsonl", "--difficulty-samples", "2", *engine],
        ["judge", "2.jsonl", "-o", "3.jsonl", "--verifier", "numeric", "--max-unparsed", "1", *engine],
        ["filter", "3.jsonl", "-o", "4.jsonl"],
        ["eval", "problems.jsonl", "-o", "6.jsonl", *engine],
    ]

    for arguments in chain:
        assert not modules_loaded_by(arguments, tmp_path) & set(HEAVY), arguments[0]


@pytest.mark.parametrize("arguments", [*COMMANDS, *SUBCOMMANDS], ids=lambda value: "-".join(("mae", *value)))
def test_every_option_has_help(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    here(*arguments, "--help")
    lines = capsys.readouterr().out.splitlines()

    entries: list[str] = []
    for line in lines:
        if re.match(r"  (-|[a-z_]+ +<)", line):
            entries.append(line)
        elif entries and line.startswith("    "):
            entries[-1] += line
    # An entry without help ends behind its names and its type.
    plain = [re.sub(r"<[^>]*>|\[[^]]*\]|[A-Z]+=[A-Z]+", "", entry) for entry in entries]
    bare = [entry for entry in plain if re.fullmatch(r"  \S+(, \S+)*\s*", entry)]

    assert (bool(entries), bare) == (True, [])


def test_every_command_of_the_design_that_exists_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in COMMANDS[1:13]:
        here(*arguments, "--help")
        assert f"mae {arguments[0]}" in capsys.readouterr().out.partition("Example:")[2]


# ---- exit codes, on the real process


def only_line(result: subprocess.CompletedProcess[bytes]) -> str:
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("solv", "x"), "No such command"),
        (("solve",), "see mae --help"),
        (("solve", "p.jsonl", "-o", "o", "--temprature", "1"), "--temprature"),
        (("solve", "p.jsonl", "-o", "o", "--temperature", "hot"), "--temperature"),
        (("solve", "none.jsonl", "-o", "o", "--engine", "scripted"), "none.jsonl: no such file"),
        (("solve", "p.jsonl", "-o", "o", "--engine", "scriptd"), 'did you mean "scripted"'),
        (("solve", "p.jsonl", "-o", "o", "--engine", "scripted:speed=1"), "speed=1"),
        (("solve", "p.jsonl", "-o", "o", "--engine", "scripted", "--batch-size", "0"), "batch_size: expected int >= 1"),
        (("solve", "p.jsonl", "-o", "o", "--engine", "scripted", "--batch-size", "many"), "--batch-size"),
        (("solve", "p.jsonl", "-o", "o", "--engine", "scripted", "--prompt", "slove"), 'did you mean "solve"'),
        (("solve", "p.jsonl", "-o", "o", "--recipe", "mae_zer"), 'did you mean "mae_zero"'),
        (("judge", "p.jsonl", "-o", "o", "--engine", "scripted"), "plain problems cannot be judged"),
        (("filter", "p.jsonl", "-o", "o"), "plain problems cannot be filtered"),
        (("finetune", "p.jsonl", "-o", "o", "--engine", "scripted"), "plain problems cannot be trained on"),
        (("finetune", "r.jsonl", "-o", "o", "--engine", "scripted"), "no weights to train"),
        (("finetune", "r.jsonl", "-o", "-"), "an adapter is a folder"),
        (("eval", "-o", "o", "--engine", "scripted"), "no benchmark"),
        (("eval", "p.jsonl", "-o", "o", "--adapter", "a", "--engine", "scripted"), "cannot use an adapter"),
        (("eval", "n.jsonl", "-o", "o", "--engine", "scripted"), "no reference answer"),
        (("run", "bad.yaml", "--run-dir", "d", "--engine", "scripted"), 'did you mean "seed"'),
        (("run", "late.yaml", "--run-dir", "d", "--engine", "scripted"), 'unknown option "hihg"'),
        (("list", "verifier"), 'did you mean "verifiers"'),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_2(
    problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    write_sums(tmp_path / "p.jsonl")
    write_rows(tmp_path / "r.jsonl", [a_row()])
    (tmp_path / "n.jsonl").write_text('{"question": "q"}\n')
    (tmp_path / "bad.yaml").write_text("sed: 1\n")
    (tmp_path / "late.yaml").write_text("filter: {filters: [{name: length, hihg: 1}]}\n")
    monkeypatch.chdir(tmp_path)

    code = here(*arguments)

    output = capfd.readouterr()
    assert (code, output.out) == (2, "")
    assert len(output.err.splitlines()) == 1, output.err
    assert message in output.err
    assert output.err.startswith("mae: ")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "d").exists()


def test_bad_input_is_exit_2_of_the_process(tmp_path: Path) -> None:
    result = mae("solve", tmp_path / "none.jsonl", "-o", tmp_path / "o.jsonl", "--engine", "scripted")

    assert (result.returncode, only_line(result)) == (2, f"mae: {tmp_path}/none.jsonl: no such file")


def test_an_unknown_model_is_exit_2_when_offline(problems: Path, tmp_path: Path) -> None:
    arguments = ["solve", str(problems), "-o", str(tmp_path / "o.jsonl"), "-m", "nobody/nothing"]
    run = f"from mae_cli.cli.app import run_app\ncode = run_app({arguments!r})"

    loaded, code, (line,) = packages_after(run, tmp_path, MAE_CACHE=str(tmp_path))

    assert code == 2
    assert "nobody/nothing" in line
    assert not loaded & {"torch", "transformers"}, "seconds before a word that needs none of it"


def test_done_and_nothing_left_to_do_are_exit_0(problems: Path, tmp_path: Path) -> None:
    for _ in range(2):
        result = mae("solve", problems, "-o", tmp_path / "o.jsonl", *SOLVE)
        assert (result.returncode, result.stdout) == (0, b"")
        assert only_line(result).startswith("solve: read 6, written 12")


def test_no_row_kept_is_exit_3_with_the_funnel_and_the_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "r.jsonl", [a_row(index=0), a_row(index=1)])

    rejected = mae("filter", tmp_path / "r.jsonl", "-o", tmp_path / "t.jsonl", "--filters", "best_of_k")
    assert (rejected.returncode, only_line(rejected)) == (
        3,
        f"mae: {tmp_path}/t.jsonl: no row was kept; left behind each filter: candidates 2, best_of_k 0",
    )
    assert len((tmp_path / "t.jsonl.dropped.jsonl").read_bytes().splitlines()) == 2


def test_too_many_unparsed_judgements_are_exit_3_and_the_file_is_written(problems: Path, tmp_path: Path) -> None:
    mae("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE)

    result = mae("judge", tmp_path / "r.jsonl", "-o", tmp_path / "j.jsonl", "--engine", "scripted:malformed=1", "-q")

    assert result.returncode == 3
    assert "100% of the judgements are unparsed" in only_line(result)
    assert (tmp_path / "j.jsonl").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_its_code_and_the_same_command_goes_on(
    problems: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ("solve", problems, "--rollouts-per-problem", 2, "--batch-size", 1, "-o")
    mae(*arguments, tmp_path / "unbroken.jsonl", "--engine", "scripted")
    process = start([*arguments, tmp_path / "o.jsonl", "--engine", "scripted"], **paused(tmp_path / "hold", 1))
    wait_until((tmp_path / "hold" / "o.jsonl.partial.paused").exists, process)

    process.send_signal(number)
    error = process.communicate()[1].decode()

    assert (process.returncode, "Traceback" in error) == (code, False)
    assert error.strip().splitlines()[-1].endswith("the same command goes on from here")
    assert mae(*arguments, tmp_path / "o.jsonl", "--engine", "scripted").returncode == 0
    assert (tmp_path / "o.jsonl").read_bytes() == (tmp_path / "unbroken.jsonl").read_bytes()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_exit_141_and_quiet(problems: Path, unbuffered: str) -> None:
    arguments = ("solve", problems, "-o", "-", "--engine", "scripted", "--rollouts-per-problem", 200)
    process = start(arguments, **({"PYTHONUNBUFFERED": unbuffered} if unbuffered else {}))
    assert process.stdout is not None
    assert process.stderr is not None

    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()

    assert (process.wait(), error) == (141, b"")


# ---- streams


def test_off_a_terminal_there_is_no_colour_and_no_carriage_return(problems: Path, tmp_path: Path) -> None:
    results = [
        mae("solve", problems, "-o", tmp_path / "o.jsonl", *SOLVE, FORCE_COLOR="1", COLUMNS="80"),
        mae("eval", problems, "-o", tmp_path / "e.jsonl", "--engine", "scripted"),
        mae("solve", "--help"),
        mae("list", "filters"),
        mae("solve", "nothing"),
    ]

    for result in results:
        assert not re.search(rb"\r|\x1b", result.stdout + result.stderr), result.args


def test_quiet_says_nothing_on_success(problems: Path, tmp_path: Path) -> None:
    chain = [
        mae("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE, "--quiet"),
        mae("judge", tmp_path / "r.jsonl", "-o", tmp_path / "j.jsonl", "--engine", "scripted", "-q"),
        mae("filter", tmp_path / "j.jsonl", "-o", tmp_path / "s.jsonl", "-q"),
        mae("eval", problems, "-o", tmp_path / "e.jsonl", "--engine", "scripted", "-q"),
        mae("solve", problems, "-o", tmp_path / "x.jsonl", *SOLVE, "-q", "--dry-run"),
    ]

    assert [(result.returncode, result.stdout, result.stderr) for result in chain] == [(0, b"", b"")] * 5


def test_json_ends_with_exactly_one_object(problems: Path, tmp_path: Path) -> None:
    chain = [
        mae("propose", problems, "-o", tmp_path / "p.jsonl", "--engine", "scripted", "--json"),
        mae("solve", problems, "-o", tmp_path / "r.jsonl", *SOLVE, "--json"),
        mae("judge", tmp_path / "r.jsonl", "-o", tmp_path / "j.jsonl", "--engine", "scripted", "--json"),
        mae("filter", tmp_path / "j.jsonl", "-o", tmp_path / "s.jsonl", "--json"),
        mae("eval", problems, "-o", tmp_path / "e.jsonl", "--engine", "scripted", "--json"),
    ]

    for result, stage in zip(chain, ("propose", "solve", "judge", "filter", "eval"), strict=True):
        (line,) = result.stdout.splitlines()
        assert msgspec.json.decode(line)["stage"] == stage


@pytest.mark.parametrize("stage", ["propose", "solve", "judge", "filter", "eval"])
def test_a_dry_run_checks_and_writes_nothing(problems: Path, tmp_path: Path, stage: str) -> None:
    records = write_rows(tmp_path / "r.jsonl", [a_row()])
    given = records if stage in ("judge", "filter") else problems
    engine = () if stage == "filter" else ("--engine", "scripted")
    before = sorted(tmp_path.iterdir())

    assert here(stage, given, "-o", tmp_path / "o.jsonl", "--dry-run", *engine) == 0
    assert here(stage, tmp_path / "none.jsonl", "-o", tmp_path / "o.jsonl", "--dry-run", *engine) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_recipe_of_mae_run_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The recipe argument was only looked for; the run went on with the defaults.
    recipe = tmp_path / "r.yaml"
    recipe.write_text("engine: scripted:accuracy=0.25\n")

    assert here("run", recipe, "--run-dir", tmp_path / "run", "--dry-run", "--json") == 0
    assert '"model":"scripted:accuracy=0.25' in capsys.readouterr().out


def test_a_flag_wins_over_set_and_recipe(problems: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("engine: scripted\nsolve: {rollouts_per_problem: 3, temperature: 0.5, top_k: 7}\n")
    more = ("--recipe", recipe, "--set", "solve.temperature=0.6", "--set", "solve.top_k=8", "--top-k", 9)

    assert here("solve", problems, "-o", tmp_path / "o.jsonl", *more) == 0

    rows = (tmp_path / "o.jsonl").read_bytes().splitlines()
    sampling = msgspec.json.decode(rows[0])["sampling"]
    assert (len(rows), sampling["temperature"], sampling["top_k"]) == (18, 0.6, 9)

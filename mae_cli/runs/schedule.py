"""Lines for cron and for systemd that start a run again and again until it is done.

Place in the flow: `mae cron` prints them; nothing is installed. Contract: they work from the empty environment that
both give (absolute paths, the folder that relative names count from, the variables that matter), and two starts never
meet: `mae run` holds its lock, so a start that finds one at work ends on 5 at once. No key is ever part of a line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mae_cli.errors import ConfigError

PASSED = (
    *("PYTHONPATH", "MAE_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "TMPDIR"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SSL_CERT_FILE"),
)
"""Variables that change what a run finds or does; cron and systemd pass none of a shell's."""
LONGEST = 998
"""Characters of a command that the usual cron reads (MAX_COMMAND of Vixie cron, end included); it cuts the rest off."""
QUIET_CODES = (5, 6)
"""Exit codes that are no failure of a scheduled start: another one is at work, or a budget is reached."""
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}


class Schedule(msgspec.Struct, kw_only=True):
    """The lines for both."""

    command: str
    """What both start, as a shell takes it."""
    log: str
    crontab: str | None
    """Null where cron would cut the line off."""
    service: str
    timer: str
    unit: str
    """Name of the units."""


def schedule(
    run_dir: Path,
    arguments: Sequence[str],
    *,
    at: str,
    python: str,
    folder: Path,
    environment: Mapping[str, str],
) -> Schedule:
    """Return the lines for a run.

    Args:
        run_dir: absolute.
        arguments: of `mae run`, recipe and run folder among them.
        at: five fields of cron, or one of its names (@daily).
        python: absolute path of the interpreter that has mae.
        folder: where relative names in the recipe count from.
        environment: of this process; what matters of it is passed on.

    Raises:
        ConfigError: no schedule, or a text that a line cannot hold.
    """
    fields = cron_fields(at)
    words = [python, "-m", "mae_cli", "run", *arguments, "--quiet", "--json"]
    passed = {name: environment[name] for name in PASSED if environment.get(name)}
    for text in (*words, *passed.values(), str(folder), str(run_dir)):
        if "\n" in text or "\r" in text or "\0" in text:
            raise ConfigError(f"a line of cron or systemd cannot hold a line break: {text!r}")
    log = run_dir.with_name(f"{run_dir.name}.log")
    command = shlex.join([*(["env", *(f"{name}={value}" for name, value in passed.items())] if passed else []), *words])
    unit = "mae-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", run_dir.name)
    line = f"{' '.join(fields)} {_escaped(_shell_line(command, folder, log))}"
    fits = len(_shell_line(command, folder, log)) <= LONGEST
    return Schedule(
        command=command,
        log=str(log),
        crontab=line if fits else None,
        service=_service(unit, words, passed, folder, log),
        timer=_timer(unit, fields),
        unit=unit,
    )


def _shell_line(command: str, folder: Path, log: Path) -> str:
    """Output goes to the log; only a failure prints its end, which cron mails."""
    quiet = " || ".join(f"[ $c = {code} ]" for code in QUIET_CODES)
    told = shlex.quote(str(log))
    return (
        f"cd {shlex.quote(str(folder))} && mkdir -p {shlex.quote(str(log.parent))} && {command} >> {told} 2>&1 || "
        f"{{ c=$?; {quiet} || {{ echo mae run ended on $c; tail -n 2 {told}; }}; }}"
    )


def _escaped(line: str) -> str:
    """In a crontab a percent sign ends the command; one behind a backslash is itself."""
    return line.replace("%", "\\%")


def cron_fields(at: str) -> list[str]:
    """Return the five fields of a schedule.

    Raises:
        ConfigError: another number of fields, or a value that is none.
    """
    fields = _NICKNAMES.get(at.strip().lower(), at).split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(f'--at "{at}": expected five fields (minute hour day month weekday) or @daily, @hourly, ...')
    for position, text in enumerate(fields):
        for part in text.split(","):
            _check_part(at, position, part)
    return fields


def _check_part(at: str, position: int, part: str) -> None:
    low, high = _RANGES[position]
    span, _, step = part.partition("/")
    bounds = [] if span == "*" else [_number(position, bound) for bound in span.split("-")]
    is_sound = len(bounds) <= 2 and all(bound is not None and low <= bound <= high for bound in bounds)
    if not is_sound or ("/" in part and not (step.isdigit() and int(step))) or bounds != sorted(bounds, key=_key):
        raise ConfigError(f'--at "{at}": "{part}" is no {_FIELDS[position]} ({low} to {high}, *, */N, A-B, A,B)')


def _key(bound: int | None) -> int:
    return -1 if bound is None else bound


def _number(position: int, text: str) -> int | None:
    if text.isdigit() and text.isascii():
        return int(text)
    names = [name.lower() for name in _DAYS] if position == 4 else list(_MONTHS) if position == 3 else []
    start = 1 if position == 3 else 0
    return names.index(text.lower()) + start if text.lower() in names else None


# ---- systemd


def on_calendar(fields: Sequence[str]) -> list[str]:
    """Return the same times as systemd writes them; two where days of month and week are given: cron takes either."""
    minute, hour, day, month, weekday = fields
    clock = f"{_times(0, hour, 1)}:{_times(0, minute, 0)}:00"
    months = _times(1, month, 3)
    days = _weekdays(weekday)
    dates = _times(1, day, 2)
    if days and day != "*":
        return [f"*-{months}-{dates} {clock}", f"{days} *-{months}-* {clock}"]
    return [f"{days + ' ' if days else ''}*-{months}-{dates} {clock}"]


def _times(first: int, text: str, position: int) -> str:
    """A field in systemd's form: A-B is A..B, */N begins at the first value."""
    found = []
    for part in text.split(","):
        span, _, step = part.partition("/")
        bounds = [str(_number(position, bound)) for bound in span.split("-")] if span != "*" else []
        if not bounds:
            found.append(f"{first}/{step}" if step else "*")
        else:
            found.append("..".join(bounds) + (f"/{step}" if step else ""))
    return ",".join(found)


def _weekdays(text: str) -> str:
    if text == "*":
        return ""
    days: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        bounds = [0, 6] if span == "*" else [_number(4, bound) or 0 for bound in span.split("-")]
        days |= {day % 7 for day in range(bounds[0], bounds[-1] + 1, int(step or 1))}
    return ",".join(_DAYS[day] for day in sorted(days, key=lambda day: (day - 1) % 7))


def _service(unit: str, words: Sequence[str], passed: Mapping[str, str], folder: Path, log: Path) -> str:
    variables = "".join(f"Environment={_word(f'{name}={value}')}\n" for name, value in passed.items())
    return (
        f"# ~/.config/systemd/user/{unit}.service\n"
        f"[Unit]\nDescription=mae run ({_percent(unit)})\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={_percent(str(folder))}\n{variables}"
        # A dollar sign begins a variable in a command, and only there.
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in words)}\n"
        f"SuccessExitStatus={' '.join(map(str, QUIET_CODES))}\n"
        f"StandardOutput=append:{_percent(str(log))}\nStandardError=append:{_percent(str(log))}\n"
        "KillMode=mixed\nTimeoutStopSec=30\n"
    )


def _timer(unit: str, fields: Sequence[str]) -> str:
    times = "".join(f"OnCalendar={time}\n" for time in on_calendar(fields))
    return (
        f"# ~/.config/systemd/user/{unit}.timer\n"
        f"[Unit]\nDescription=mae run ({_percent(unit)}) by the clock\n\n"
        f"[Timer]\n{times}Persistent=true\n\n[Install]\nWantedBy=timers.target\n"
    )


def _word(text: str) -> str:
    """A word in systemd's quotes."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_percent(quoted)}"'


def _percent(text: str) -> str:
    """A percent sign begins a specifier; two are one."""
    return text.replace("%", "%%")

"""Programs run as scripts: standard input given, standard output compared, one fresh guest a case.

Place in the flow: `carry_out` calls it for the stdin tests of contest sets. Contract: all cases must be right; the
first that is not ends the run. What a program prints is compared on the host; it never sees what is expected.
"""

from __future__ import annotations

import json
import time
from typing import Any, Final

from mae_cli.checking.code.guests import Guest, GuestEndedError, as_json
from mae_cli.checking.code.outputs import same_output

MAX_OUTPUT: Final = 8_000_000
"""Most bytes a script may print in one case."""


def run_script(order: dict[str, Any]) -> dict[str, Any]:
    """Run a script on each input: `inputs` and `outputs` are texts, `seconds` the limit of each case."""
    pairs = list(zip(order["inputs"], order["outputs"], strict=True))
    for number, (given, expected) in enumerate(pairs, 1):
        result = _case(order, given, expected)
        if result["status"] != "passed":
            return {**result, "reason": f"case {number} of {len(pairs)}: {result['reason']}"}
    return {"status": "passed", "reason": f"{len(pairs)} of {len(pairs)} cases right"}


def _case(order: dict[str, Any], given: str, expected: str) -> dict[str, Any]:
    text = given.encode(errors="surrogatepass")
    guest = Guest("program", memory_mib=order["memory_mib"], stdin=text, output_bytes=MAX_OUTPUT)
    try:
        guest.receive(time.monotonic() + 60.0)
        until = time.monotonic() + order["seconds"]
        guest.send(json.dumps({"kind": "script", "source": order["source"], "seed": 0}).encode())
        told, spoke = as_json(guest.receive(until)), False
        guest.send(b"")
        try:
            guest.receive(until)
            spoke = True
        except GuestEndedError as error:
            done = guest.wait(30.0)
            if error.reason != "ended" or done is None:
                return {"status": "failed", "reason": error.reason[:300]}
        if spoke:
            return {"status": "failed", "reason": "the program speaks in the sandbox's name"}
        return _judged(told, done, expected)
    except GuestEndedError as error:
        return {"status": "failed", "reason": f"the program ended itself: {error.reason}"[:300]}
    except TimeoutError:
        return {"status": "timeout", "reason": f"timeout: more than {order['seconds']:g} s"}
    finally:
        guest.stop()


def _judged(told: list[Any], done: Any, expected: str) -> dict[str, Any]:
    if done.truncated:
        return {"status": "output", "reason": f"printed more than {MAX_OUTPUT} bytes"}
    if told[0] == "failed":
        name, text, lack = told[1:4]
        status = {"memory": "memory", None: "failed"}.get(lack, "unsupported")
        return {"status": status, "reason": str(lack or f"{name}: {text}")[:300]}
    same = same_output(done.stdout.decode(errors="replace"), expected)
    return {"status": "passed" if same else "failed", "reason": "right" if same else "another output"}

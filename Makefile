# `make demo` does the main job, `make test` checks everything; both set up .venv by themselves.
SHELL := /bin/sh
KT_DEMO_ARGS ?=

# The first interpreter that has venv and for which every dependency has wheels.
find_python = for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	  command -v $$p >/dev/null 2>&1 && \
	  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' >/dev/null 2>&1 && \
	  echo $$p && exit 0; done; \
	echo "kt-es needs Python 3.11, 3.12, 3.13 or 3.14 with the venv module (on Debian: apt-get install python3 python3-venv)" >&2; exit 1

.PHONY: demo shared test check format setup clean fuzz

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt kt_es/__init__.py
	@python=$$($(find_python)) || exit 1; \
	test -x .venv/bin/python || $$python -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,server,grpc,openpgp,plot,shared]'
	@touch $@

demo: setup
	.venv/bin/kt demo $(KT_DEMO_ARGS)

# The same on three nodes of Apache Cassandra, which are started for it: the map is in their store.
shared: setup
	.venv/bin/python -m tools.cassandra --nodes 3 \
	  .venv/bin/kt demo --shared cassandra://ADDRESSES/kt_demo $(KT_DEMO_ARGS)

check: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

# One more than two processors, because tests wait for processes and disks a quarter of their time.
WORKERS ?= 3

test: check
	.venv/bin/python -m pytest -n $(WORKERS) --dist worksteal

# The same Python with the other client library: what is used from Python 3.14 on, tried on this one.
.venv-kurrentdb/.installed: pyproject.toml constraints.txt tools/requirements.py
	@python=$$($(find_python)) || exit 1; \
	test -x .venv-kurrentdb/bin/python || $$python -m venv .venv-kurrentdb
	.venv-kurrentdb/bin/python -m pip install --quiet --disable-pip-version-check packaging
	.venv-kurrentdb/bin/python -m tools.requirements 3.14 server grpc openpgp shared dev > .venv-kurrentdb/requirements.txt
	.venv-kurrentdb/bin/python -m tools.requirements 3.14 --constraints > .venv-kurrentdb/constraints.txt
	.venv-kurrentdb/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c .venv-kurrentdb/constraints.txt -r .venv-kurrentdb/requirements.txt
	.venv-kurrentdb/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.PHONY: test-kurrentdb
test-kurrentdb: .venv-kurrentdb/.installed
	.venv-kurrentdb/bin/python -m pytest -n $(WORKERS) --dist worksteal tests/contracts tests/eventstore \
	  tests/node/test_ops.py tests/node/test_ops_bench.py tests/node/test_passwords.py tests/node/test_security.py \
	  tests/node/test_stopping.py
	.venv-kurrentdb/bin/kt demo $(KT_DEMO_ARGS)
	.venv-kurrentdb/bin/python -m tools.torture --rounds $(or $(ROUNDS),4)

# The quick tests on every other supported Python that is installed, each in an environment of its own.
.PHONY: test-pythons
test-pythons: setup
	.venv/bin/python -m tools.pythons

# Both client libraries by turns: `kt bench node` and `kt bench signer`, ROUNDS times each.
.PHONY: bench-clients
bench-clients: setup .venv-kurrentdb/.installed
	.venv/bin/python -m tools.beside node $(or $(ROUNDS),3) .venv/bin/kt .venv-kurrentdb/bin/kt
	.venv/bin/python -m tools.beside signer $(or $(ROUNDS),3) .venv/bin/kt .venv-kurrentdb/bin/kt

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

clean:
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Lies of a malicious operator, told to the real commands: caught or not caught. ONLY is a part of a name.
.PHONY: lies
lies: setup
	.venv/bin/python -m tools.lies $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

# Abuse of a real front end, each attack for SECONDS, while another client looks accounts up: it must not be
# refused, nor wait longer than P99 ms in one of a hundred lookups. ONLY is a part of a name.
.PHONY: abuse
abuse: setup
	.venv/bin/python -m tools.abuse --seconds $(or $(SECONDS),60) --p99 $(or $(P99),250) \
	  $(if $(ONLY),--only $(ONLY))

# Faults on real processes: ROUNDS of them, drawn from SEED (else a random one, printed first); no round
# begins after SECONDS; once the node is frozen for FROZEN seconds.
.PHONY: torture
torture: setup
	.venv/bin/python -m tools.torture --rounds $(or $(ROUNDS),30) $(if $(SEED),--seed $(SEED)) \
	  $(if $(SECONDS),--seconds $(SECONDS)) $(if $(FROZEN),--frozen $(FROZEN))

# The node alone, killed ROUNDS times under writers and subscribers.
.PHONY: torture-node
torture-node: setup
	.venv/bin/python -m tools.node_torture --rounds $(or $(ROUNDS),200) $(if $(SEED),--seed $(SEED))

# The node's bounds at full size: a million events behind subscribers that do not read, EVENTS and STREAMS.
.PHONY: bounds-node
bounds-node: setup
	KT_TEST_NODE_EVENTS=$(or $(EVENTS),1000000) KT_TEST_NODE_STREAMS=$(or $(STREAMS),100000) \
	  .venv/bin/python -m pytest tests/node/test_bounds.py

# Coverage-guided fuzzing of our own code; .fuzz keeps inputs and findings between runs.
fuzz: setup
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	.venv/bin/python -m tools.fuzz $(or $(TARGET),all) --seconds $(or $(SECONDS),600) --corpus $(or $(CORPUS),.fuzz)

# Epochs of ITEMS items through real processes: memory, time and the size of the log, each KIND in turn; of
# items of 16 KiB a twentieth, of events of 1 MiB a thousandth.
.PHONY: bounds
bounds: setup
	.venv/bin/python -m tools.bounds --items $(or $(ITEMS),1000000) $(if $(KIND),--kind $(KIND))

# The OpenAPI document in docs/, which a test compares with the code.
.PHONY: openapi
openapi: setup
	.venv/bin/python -m tools.openapi

# The page of the library's public names, which a test compares with the code.
.PHONY: api
api: setup
	.venv/bin/python -m tools.api_page

# The code of the gRPC interface, which a test compares with the .proto file.
.PHONY: proto
proto: setup
	.venv/bin/python -m tools.proto

# Everything this repository can do. `make serve` and `make test` work on a fresh clone: they create .venv first.

# Python to create the environment with (3.11 or newer); by default the first suitable one of PYTHONS.
PYTHON ?=
# Port of `make serve`; 0 takes a free one.
PORT ?= 8000
# Language of `make gettext` and `make translation`; not taken from the environment, where it says what a person reads.
LANGUAGE := hi

PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BUILD := _build
SPHINX := $(PY) -m sphinx -W --keep-going -n -c . -d $(BUILD)/doctrees
# As many processes as there are cores (up to 4), with one thread each; `$(PY) -m pytest` by itself runs in one process.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# $(call first-python,CANDIDATES): shell code for the first candidate that is new enough, else the first Python 3 at
# all (which then says what is wrong with it), else nothing.
define first-python
new= any= ; for p in $(1); do \
  "$$p" -c 'f""' >/dev/null 2>&1 || continue; any=$${any:-$$p}; \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { new=$$p; break; }; \
done; python=$${new:-$$any}; \
if [ -z "$$python" ]; then \
  echo "error: found no Python 3 (tried: $(1))."; \
  echo "  Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; \
fi >&2
endef

.DEFAULT_GOAL := help
.PHONY: help serve test html env browser doctest gallery figures lighthouse notebooks bundle epub pdf linkcheck lint models bench gpu package-test audit new-mechanism gettext translation mutation fuzz lock clean distclean

help: ## List the targets
	@echo "Usage: make TARGET [PORT=8000] [PYTHON=python3.12]"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

serve: env ## Build the site and serve it at http://127.0.0.1:8000 (PORT=... for another port)
	@$(PY) -m tools.serve --check --port $(PORT)
	@$(MAKE) --no-print-directory html
	@$(PY) -m tools.serve --port $(PORT) $(BUILD)/html

test: env browser ## Run every test: package, prose, claims, the site in a browser
	$(PYTEST)

html: env ## Build the site into _build/html; a warning is an error
	$(SPHINX) -b html docs $(BUILD)/html

env: $(STAMP) ## Create or update .venv (done by every other target that needs it)

$(STAMP): pyproject.toml constraints.txt
	@$(call first-python,$(PYTHONS)); "$$python" tools/setup_env.py $(VENV)

browser: env ## Find Chromium for the browser tests, or install it
	@$(PY) -m tools.browser

doctest: env ## Run the examples of the prose, the README and the docstrings
	$(PYTEST) docs attn_guide README.md

gallery: env ## Run every gallery script by itself, outside Sphinx; nothing is cached, nothing is saved
	@$(PY) -m tools.gallery

figures: html browser ## Compare the figures with how they were accepted to look; ACCEPT=1 accepts them as they are now
	@$(PY) -m tools.figures $(if $(ACCEPT),--accept)

lighthouse: html browser ## Let Lighthouse judge Home and every chapter (needs Node.js, and the network once)
	@$(PY) -m tools.lighthouse

notebooks: html ## Build the chapters as notebooks and run them as a reader would who downloaded them
	@$(PY) -m tools.notebooks $(BUILD)/html/chapters

bundle: html ## Pack the site into _build/offline, as a zip that is read without a server
	@$(PY) -m tools.bundle $(BUILD)/html --to $(BUILD)/offline

epub: html ## Make the book for e-readers: Home, chapters and appendices, into _build/offline
	@$(PY) -m tools.book epub $(BUILD)/html --to $(BUILD)/offline

pdf: html browser ## Print the book with Chromium, into _build/offline
	@$(PY) -m tools.book pdf $(BUILD)/html --to $(BUILD)/offline

models: env ## Train every model of attn_guide.models that is not trained yet, into _build/models
	@$(PY) -m attn_guide.models train

bench: env ## Time the package beside PyTorch and save the results (on a quiet machine; minutes)
	$(PY) -m benchmarks

gpu: env ## Run the tests that need a GPU, then every kernel side by side; a dry run where there is none
	$(PY) -m pytest -m gpu tests
	$(PY) -m benchmarks gpu

linkcheck: env ## Check the links of the site that leave it (needs the network)
	$(SPHINX) -b linkcheck docs $(BUILD)/linkcheck

lint: env ## Check style (ruff), types (mypy) and spelling (codespell)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m codespell_lib

package-test: ## Test the package as installed; RELEASES=oldest or newest for other releases than the pinned ones
	@$(call first-python,$(PYTHONS)); "$$python" -m tools.package_test $(RELEASES)

audit: env ## Look up the pinned packages in the database of known vulnerabilities (needs the network)
	$(PY) -m pip install -q pip-audit && $(PY) -m pip_audit --strict --disable-pip --no-deps -r constraints.txt

new-mechanism: env ## Lay out the files of a new mechanism: NAME=delayed CHAPTER=4
	@$(PY) -m tools.new_mechanism "$(NAME)" "$(CHAPTER)"

gettext: env ## Refresh the catalogs of docs/locale; LANGUAGE=fr PAGES="index chapters/0-concepts" starts some
	$(SPHINX) -b gettext -d $(BUILD)/doctrees-gettext docs $(BUILD)/gettext
	@$(PY) -m tools.translations refresh
	@$(if $(PAGES),$(PY) -m tools.translations start "$(LANGUAGE)" $(PAGES))

translation: env ## Check the catalogs of a language and build the guide in it, into _build/html-hi (LANGUAGE=hi)
	@$(PY) -m tools.translations check "$(LANGUAGE)"
	$(SPHINX) -b html -D language=$(LANGUAGE) -d $(BUILD)/doctrees-$(LANGUAGE) docs $(BUILD)/html-$(LANGUAGE)

mutation: env ## Plant faults in the package and see that the tests catch every one (minutes)
	$(PY) -m tools.mutate

fuzz: env ## Throw arbitrary input at functions, command lines and checkpoints: FUZZ_SECONDS=60 for each
	$(PY) -m pip install -q --only-binary :all: atheris || echo "atheris has no build for this Python or system"
	$(PY) -m tools.fuzz

lock: ## Refresh the pinned releases in constraints.txt (needs Python 3.11, the oldest supported)
	@$(call first-python,$(or $(PYTHON),python3.11)); "$$python" tools/lock.py

clean: ## Remove what was built; the environment stays
	rm -rf $(BUILD) docs/gallery docs/api/generated docs/sg_execution_times.rst
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache build dist
	rm -f docs/locale/*/LC_MESSAGES/*.mo docs/locale/*/LC_MESSAGES/*/*.mo
	find attn_guide docs gallery tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the environment too
	rm -rf $(VENV) attn_guide.egg-info

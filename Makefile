# Set-up, data, report, tests. `make` alone lists the targets.
# PROFILE=smoke runs small sizes; FRESH=1 recomputes all; FROM=folder brings data from a folder.

PYTHON    ?= python3
PROFILE   ?= report
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
NAMES     := $(NOTEBOOKS:notebooks/%.ipynb=%)
EXECUTED  := notebooks/executed/$(PROFILE)
RENDERED  := notebooks/rendered/$(PROFILE)
BIN       := .venv/bin
READY     := .venv/ready
CODE      := $(filter-out helpers/download.py helpers/render.py helpers/verify.py helpers/explorer.py helpers/article.py helpers/appendix.py, $(wildcard helpers/*.py))
PAGE      := $(addprefix helpers/page/, conf.json index.md.j2 page.css numeric.csl)
STARTED   := $(EXECUTED)/.fresh-since

ifneq ($(filter-out 0,$(FRESH)),)
# One time for the whole run, kept until it has finished: a rerun after an interruption goes on.
override FRESH := $(shell mkdir -p $(dir $(STARTED)); [ -s $(STARTED) ] || date +%s > $(STARTED); cat $(STARTED))
STALE := $(STARTED)
export FRESH
endif
# TensorFlow's notes on the processor and on absent graphics cards say nothing that one can mend.
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PYTHONDONTWRITEBYTECODE := 1

help:     ## list the targets
	@sed -n 's/^\([a-z]*\): *[^#]*## */\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv from environment.yml
.venv-bench/ready: helpers/bench/requirements.txt
$(READY) .venv-bench/ready: environment.yml helpers/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(@D) (a few minutes; log in $(@D)/install.log) ..."
	@$(PYTHON) -m venv $(@D)
	@sed -n 's/^ *- \(-e [^ ]*\|[a-z0-9_-]*==[^ ]*\).*/\1/p' environment.yml > $(@D)/requirements.txt
	@$(@D)/bin/pip install --disable-pip-version-check --retries 2 $(patsubst %,-r %,$(@D)/requirements.txt $(filter %.txt,$^)) > $(@D)/install.log 2>&1 || \
	  { echo "Could not install what $(filter %.yml %.txt,$^) lists: is there a network? pip's own words are in $(@D)/install.log"; exit 1; }
	@touch $@

data: $(READY)  ## bring the full CIFAR-10 (FROM=folder: from .npz files there)
	@$(BIN)/python -m helpers.download $(FROM)

report: html pdf $(NAMES:%=$(RENDERED)/%.html) explorer  ## execute all notebooks and write the report
	@rm -f $(STALE)
	@echo "The report: $(RENDERED)/report.html and report.pdf; beside it, the executed notebooks as HTML"

html: $(RENDERED)/report.html  ## the report in HTML alone
pdf: $(RENDERED)/report.pdf    ## the report in PDF alone

explorer: $(RENDERED)/explorador.html  ## one page with sliders over image, attack, size and JPEG, offline

smoke: $(READY)  ## the same, small, of MNIST alone, computed live (half an hour)
	@rm -rf notebooks/executed/smoke notebooks/rendered/smoke
	@$(MAKE) --no-print-directory report PROFILE=smoke FRESH=1

test: $(READY)  ## run the tests
	@$(BIN)/python -m pytest -q helpers/tests

verify: $(READY)  ## recompute a random sample of what ships (MINUTES=10)
	@$(BIN)/python -m helpers.verify $(MINUTES)

sweep: $(READY)  ## the study of over-fitting (hours), or NOTEBOOK= over GRID=; SCHEDULER=tcp://…
	@$(BIN)/python -m $(if $(NOTEBOOK)$(GRID),helpers.sweeps,helpers.overfitting)

bench: .venv-bench/ready  ## compare our attacks with other libraries (hours)
	@.venv-bench/bin/python -m helpers.bench

lab: $(READY)  ## open JupyterLab
	@$(BIN)/jupyter lab --ServerApp.root_dir=.

strip: $(READY)  ## take the outputs out of the notebooks
	@$(BIN)/nbstripout $(NOTEBOOKS)

clean:    ## remove .venv, .venv-bench and what was executed and rendered; data/made stays
	rm -rf .venv .venv-bench notebooks/executed notebooks/rendered

# Who reads whom: an arrow a line.
$(EXECUTED)/02_entrenamiento.ipynb: $(EXECUTED)/01_datos.ipynb
$(EXECUTED)/03_ataques.ipynb: $(EXECUTED)/02_entrenamiento.ipynb $(wildcard helpers/bench/*.py)
$(EXECUTED)/04_defensa_jpeg.ipynb: $(EXECUTED)/03_ataques.ipynb
$(EXECUTED)/05_transferencia.ipynb: $(EXECUTED)/03_ataques.ipynb
$(EXECUTED)/07_saliencia.ipynb: $(EXECUTED)/03_ataques.ipynb

$(EXECUTED)/%.ipynb: notebooks/%.ipynb notebooks/$(PROFILE).yaml $(CODE) $(STALE) | $(READY)
	@mkdir -p $(@D)
	@rm -f $@
	@echo "Executing $<"
	@$(BIN)/papermill -k python3 --log-level WARNING -f notebooks/$(PROFILE).yaml $< $@.partial.ipynb || \
	  { mv -f $@.partial.ipynb $(@:.ipynb=.failed.ipynb) 2>/dev/null; \
	    echo "$< failed: its traceback is in $(@:.ipynb=.failed.ipynb)"; exit 1; }
	@rm -f $(@:.ipynb=.failed.ipynb)
	@mv $@.partial.ipynb $@

$(RENDERED)/%.html: $(EXECUTED)/%.ipynb helpers/render.py $(PAGE) notebooks/references.bib
	@mkdir -p $(@D)/.partial
	@echo "Rendering $@"
	@$(BIN)/jupyter nbconvert --log-level WARN --to helpers.render.Page $< --output-dir $(@D)/.partial
	@mv $(@D)/.partial/$(@F) $@; rmdir $(@D)/.partial 2>/dev/null || true

$(RENDERED)/explorador.html: helpers/explorer.py helpers/page/explorer.html notebooks/$(PROFILE).yaml $(EXECUTED)/03_ataques.ipynb | $(READY)
	@mkdir -p $(@D)
	@echo "Writing $@"
	@$(BIN)/python -m helpers.explorer notebooks/$(PROFILE).yaml $@

$(RENDERED)/report.%: $(NAMES:%=$(EXECUTED)/%.ipynb) notebooks/informe.md helpers/article.py helpers/appendix.py helpers/render.py \
  $(PAGE) $(wildcard helpers/page/article.*) notebooks/references.bib
	@mkdir -p $(@D)
	@echo "Writing $@"
	@$(BIN)/python -m helpers.article $(EXECUTED) $@

.DELETE_ON_ERROR:
.SECONDARY:
export NOTEBOOK GRID SCHEDULER WORKERS
.PHONY: help setup data report html pdf explorer smoke test verify sweep bench lab strip clean

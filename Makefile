# Set-up, data, report, tests. `make` alone lists the targets.
# PROFILE=smoke runs small sizes; FRESH=1 recomputes all; FROM=folder brings data from a folder.
# Values given on the command line reach a recipe through its environment, where the shell does not split them.

PYTHON    ?= python3
PROFILE   ?= report
# After `conda activate` that environment is used, else .venv; VENV=folder names another.
VENV      ?= $(if $(filter ataques-adversarios,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX),.venv)
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
NAMES     := $(NOTEBOOKS:notebooks/%.ipynb=%)
EXECUTED  := notebooks/executed/$(PROFILE)
RENDERED  := notebooks/rendered/$(PROFILE)
RUN       := "$(VENV)/bin/python" -m
READY     := $(if $(filter .venv,$(VENV)),.venv/ready,given.ready)
LIST      := environment.yml helpers/pyproject.toml helpers/requirements.lock
REPORTING := appendix article execute explorer page
APART     := artifacts/progress datasets/download lock quiet study/states study/verify $(REPORTING:%=report/%)
CODE      := $(filter-out $(APART:%=helpers/%.py) helpers/tests/% helpers/bench/%, $(wildcard helpers/*.py helpers/*/*.py helpers/*/*/*.py))
PAGE      := $(filter-out helpers/report/templates/article.% helpers/report/templates/explorer.%, $(wildcard helpers/report/templates/*))
WORDS     := helpers/report/templates/words.csl notebooks/references.bib
STARTED   := $(EXECUTED)/.fresh-since
BEGUN     := $(shell date +%s)

ifneq ($(words $(PROFILE)),1)
$(error PROFILE must be the name of a file notebooks/NAME.yaml, got '$(PROFILE)')
endif
ifneq ($(filter-out 0,$(FRESH)),)
ifneq ($(shell case '$(FRESH)' in (*[!0-9.]*) echo wrong;; esac),)
$(error FRESH must be 0 or 1, got '$(FRESH)')
endif
ifneq ($(filter report executed html pdf explorer sweep bench notebooks/%,$(MAKECMDGOALS)),)
# One time for the whole run, kept until it has finished: a rerun after an interruption goes on.
override FRESH := $(shell mkdir -p $(EXECUTED); [ -s $(STARTED) ] || date +%s > $(STARTED); cat $(STARTED))
STALE := $(STARTED)
export FRESH
endif
endif
# An accent in a path would stop Python and pandoc where the locale knows none.
ifneq ($(filter C POSIX,$(or $(LC_ALL),$(LC_CTYPE),$(LANG),C)),)
export LC_ALL := C.UTF-8
endif
export PYTHONUTF8 := 1
export PYTHONDONTWRITEBYTECODE := 1

help:     ## list the targets
	@sed -n 's/^\([a-z]*\): *[^#]*## */\1|/p' Makefile | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv from environment.yml, at the versions of helpers/requirements.lock
.venv-bench/ready: helpers/bench/requirements.txt
.venv/ready .venv-bench/ready: $(LIST)
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into $(@D) (a few minutes; log in $(@D)/install.log) ..."
	@"$(PYTHON)" -m venv $(@D)
	@sed -n -e 's/^ *- \(-e [^ ]*\).*/\1/p' -e 's/^ *- \([a-z0-9_-]*==[^ ]*\).*/\1/p' environment.yml > $(@D)/requirements.txt
	@[ -s $(@D)/requirements.txt ] || { echo "environment.yml lists no package: nothing was installed"; exit 1; }
	@$(@D)/bin/python -m pip install --disable-pip-version-check --retries 2 -c helpers/requirements.lock \
	  $(patsubst %,-r %,$(@D)/requirements.txt $(filter %.txt,$^)) > $(@D)/install.log 2>&1 || \
	  { echo "Could not install what $(filter %.yml %.txt,$^) lists: is there a network? pip's own words are in $(@D)/install.log"; exit 1; }
	@for path in $(@D)/lib/python3*/site-packages/_helpers.pth; do echo ../../../.. > $$path; done  # Python reads it in the locale's letters
	@touch $@
given.ready:  # an environment of the user's own
	@"$(VENV)/bin/python" -c "import importlib.util as u; exit(not u.find_spec('papermill'))" 2>/dev/null || { echo "VENV=$(VENV) lacks what environment.yml lists: conda env update -f environment.yml"; exit 1; }

lock:     ## renew helpers/requirements.lock: the versions of all that environment.yml brings
	@"$(PYTHON)" -m helpers.lock

data: data.given $(READY)  ## bring the full CIFAR-10 (FROM=folder: from .npz files there)
	@$(RUN) helpers.datasets.download $${FROM:+"$$FROM"}

report: html pdf $(NAMES:%=$(RENDERED)/%.html) explorer  ## execute all notebooks and write the report
	@rm -f $(STALE)
	@echo "The report: $(RENDERED)/report.html and report.pdf; beside it, the executed notebooks as HTML." \
	  "It took $$(( ($$(date +%s) - $(BEGUN)) / 60 )) min $$(( ($$(date +%s) - $(BEGUN)) % 60 )) s."

executed: $(NAMES:%=$(EXECUTED)/%.ipynb)
html: $(RENDERED)/report.html  ## the report in HTML alone
pdf: $(RENDERED)/report.pdf    ## the report in PDF alone

explorer: $(RENDERED)/explorador.html  ## one page with sliders over image, attack, size and JPEG, offline

page: page.given $(READY)  ## any executed notebook as a page, HTML and PDF: FILE=out.ipynb
	@$(RUN) helpers.report.page "$$FILE"

smoke: $(READY)  ## the same, small, of MNIST alone, computed live (half an hour)
	@$(MAKE) --no-print-directory report PROFILE=smoke FRESH=1

test: $(READY)  ## run the tests
	@$(RUN) pytest -q helpers/tests

verify: verify.given $(READY)  ## recompute a random sample of what ships (MINUTES=10)
	@$(RUN) helpers.study.verify $${MINUTES:+"$$MINUTES"}

sweep: sweep.given $(READY)  ## the study of over-fitting (hours), or NOTEBOOK= over GRID=; SCHEDULER=tcp://…
	@$(RUN) $(if $(NOTEBOOK)$(GRID),helpers.report.grid,helpers.study.overfitting)
	@rm -f $(STALE)

bench: bench.given .venv-bench/ready  ## compare our attacks with other libraries (hours)
	@.venv-bench/bin/python -m helpers.bench
	@rm -f $(STALE)

lab: $(READY)  ## open JupyterLab (ARGS="--no-browser …": its own options)
	@$(RUN) jupyterlab --ServerApp.root_dir=. $(ARGS)

strip: $(READY)  ## take the outputs out of the notebooks
	@$(RUN) nbstripout $(NOTEBOOKS)

clean:    ## remove .venv, .venv-bench and what was executed and rendered; data/made stays
	rm -rf .venv .venv-bench notebooks/executed notebooks/rendered

# What the command line gives is checked before anything is set up.
count = case "$${$1:-1}" in (*[!0-9]*|0) echo "$1 must be an integer >= 1, got '$$$1'"; exit 1;; esac
path = [ -f "$$$1" ] || { echo "$1 must be the path of $2, got '$$$1'"; exit 1; }
data.given:
	@[ -z "$$FROM" ] || [ -f "$$FROM/cifar10.npz" ] || { echo "FROM must be a folder that holds cifar10.npz, got '$$FROM'"; exit 1; }
page.given:
	@$(call path,FILE,an executed notebook)
verify.given:
	@case "$${MINUTES:-1}" in (*[!0-9.]*|*.*.*|.|0|0.|.0|0.0) echo "MINUTES must be a positive number, got '$$MINUTES'"; exit 1;; esac
sweep.given:
	@[ -z "$$NOTEBOOK$$GRID" ] || { $(call path,NOTEBOOK,a notebook); $(call path,GRID,a YAML file, of a list for each parameter); }
	@$(call count,WORKERS)
bench.given:
	@$(call count,N); $(call count,REPEATS)

# Who reads whom: an arrow a line.
$(EXECUTED)/02_entrenamiento.ipynb: $(EXECUTED)/01_datos.ipynb
$(EXECUTED)/03_ataques.ipynb: $(EXECUTED)/02_entrenamiento.ipynb $(wildcard helpers/bench/*.py)
$(EXECUTED)/04_defensa_jpeg.ipynb: $(EXECUTED)/03_ataques.ipynb
$(EXECUTED)/05_transferencia.ipynb: $(EXECUTED)/03_ataques.ipynb
$(EXECUTED)/07_saliencia.ipynb: $(EXECUTED)/03_ataques.ipynb

$(EXECUTED)/%.ipynb: notebooks/%.ipynb notebooks/$(PROFILE).yaml $(CODE) $(WORDS) $(STALE) | $(READY)
	@$(RUN) helpers.report.execute notebooks/$(PROFILE).yaml $< $@

notebooks/%.yaml:  # asked for where it is not there
	@echo "There is no $@: copy notebooks/report.yaml to $@ and change the sizes there"; exit 1

$(RENDERED)/%.html: $(EXECUTED)/%.ipynb helpers/report/page.py $(PAGE) notebooks/references.bib
	@mkdir -p $(@D)
	@echo "Rendering $@"
	@part=$(@D)/.$$$$.part; $(RUN) jupyter nbconvert --log-level WARN --to helpers.report.page.Page $< --output-dir $$part && \
	  mv $$part/$(@F) $@; done=$$?; rm -rf $$part; exit $$done

$(RENDERED)/explorador.html: helpers/report/explorer.py helpers/study/states.py helpers/report/templates/explorer.html notebooks/$(PROFILE).yaml $(EXECUTED)/03_ataques.ipynb | $(READY)
	@mkdir -p $(@D)
	@echo "Writing $@"
	@$(RUN) helpers.report.explorer notebooks/$(PROFILE).yaml $@

$(RENDERED)/report.%: $(NAMES:%=$(EXECUTED)/%.ipynb) notebooks/informe.md helpers/report/article.py helpers/report/appendix.py helpers/report/page.py \
  $(PAGE) $(wildcard helpers/report/templates/article.*) notebooks/references.bib
	@mkdir -p $(@D)
	@echo "Writing $@"
	@$(RUN) helpers.report.article $(EXECUTED) $@

.DELETE_ON_ERROR:
.PRECIOUS: $(EXECUTED)/%.ipynb $(RENDERED)/%
.PHONY: help setup given.ready lock data report executed html pdf explorer page smoke test verify sweep bench lab strip clean \
  data.given page.given verify.given sweep.given bench.given

# The front door: `make run` shows the main job, `make test` proves it. Both install what they need first.
.DEFAULT_GOAL := help
BIN := .venv/bin

help:            ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

setup:           ## install what the others need (again is quick and harmless)
	@scripts/setup

run: setup       ## the tutorial: volumes of a real Docker Engine, narrated (ARGS=--stop ends it)
	@$(BIN)/python scripts/tutorial.py $(ARGS)

check: setup     ## formatting, lints, types, layers
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

test: check      ## every test on real parts, then the table of features
	@scripts/test $(ARGS)

test-guest: setup ## the tests that need a full kernel, in a guest
	@scripts/test --guest $(ARGS)

campaign: setup  ## the long ones: hundreds of kills
	@scripts/test --campaign $(ARGS)

features: setup  ## what works, and the tests that prove it
	@$(BIN)/python scripts/features.py

bench: setup     ## side by side with peers (ONLY=name for one)
	@scripts/setup --peers && $(BIN)/python bench/run.py $(ONLY)

scoreboard: setup ## voltest against orlop and its peers -> docs/scoreboard.md
	@scripts/setup --peers && $(BIN)/python scripts/scoreboard.py

docs: setup      ## the pages that are made from the code
	@$(BIN)/python scripts/docs.py

lock:            ## choose the newest versions that pyproject.toml allows
	@scripts/setup --lock

.PHONY: help setup run check test test-guest campaign features bench scoreboard docs lock

# What can be done with a checkout; `make help` lists it. The work is in scripts/.
# HEADWATER_PORT and HEADWATER_PG_PORT move the ports; other HEADWATER_ variables reach the streamer.

.DEFAULT_GOAL := help
.PHONY: help demo up down restart-streamer test check bench coverage

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/    make \1\t\2/p' Makefile | expand -t 28

demo: ## install what is missing, build, run everything with the orders example; Ctrl-C ends it
	@exec scripts/stack demo

up: ## the same in the background; returns when healthy; the addresses are in .headwater/env
	@exec scripts/stack up

down: ## stop what `make up` started; the data stays
	@exec scripts/stack down

restart-streamer: ## restart the streamer alone
	@exec scripts/stack restart-streamer

test: ## everything that CI checks: lints, unit, extension and end-to-end tests
	@exec scripts/test

coverage: ## line coverage of the Rust and the TypeScript, by their tests; make coverage ARGS=typescript for a part
	@exec scripts/coverage $(ARGS)

bench: ## measure Headwater beside its peers; make bench ARGS="ingest --rounds 3" for a part
	@exec scripts/bench $(ARGS)

check: ## lints only
	@scripts/bootstrap test
	@exec scripts/check

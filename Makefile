.PHONY: check test host
check:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -n 2

host:
	pytest -m host tests/host

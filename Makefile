.PHONY: check test host package docs
check:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest -n 2

host:
	pytest -m host tests/host

package:
	.ci/package

docs:
	mkdocs build --strict

"""`python -m mil`."""

from mil.cli.main import main

main()

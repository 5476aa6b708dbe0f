"""Run the command line: ``python -m streamsr``."""

from streamsr.cli import main

main()

"""The command line: parse, call, print. Imports nothing heavy, so that `--help` answers at once."""

from geoseg.cli.main import geoseg, main

__all__ = ["geoseg", "main"]

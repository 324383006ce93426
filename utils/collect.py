"""The name under which ``python -m launch.collect`` was known: ``python -m utils.collect <folder>``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("launch.collect", run_name="__main__")

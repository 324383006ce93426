"""The name under which ``python -m doctor`` was known: ``python -m utils.doctor``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("doctor", run_name="__main__")

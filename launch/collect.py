"""A former name of ``python -m launch.sweep_table``: ``python -m launch.collect <folder>``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("launch.sweep_table", run_name="__main__")

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.measure import Case, matmul_ceiling, measure

REPOSITORY = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def test_a_matrix_product_is_counted_right_and_reaches_its_own_ceiling():
    a = torch.randn(1024, 1024)
    timing = measure(Case("product", "products", 1, lambda: a @ a), CPU, seconds=0.3)
    assert timing.gflop_per_item == pytest.approx(2 * 1024**3 / 1e9)
    assert 0.2 < timing.fraction < 1.5, "noise moves it, arithmetic does not"
    assert timing.gflops == pytest.approx(timing.items_per_second * timing.gflop_per_item)
    assert matmul_ceiling(CPU, seconds=0.1) > 0


@pytest.mark.slow
def test_the_table_has_every_line_and_compares(tmp_path):
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--seconds", "0.01", "--out", str(out)]
    first = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    names = [timing["name"] for timing in json.loads(out.read_text())["timings"]]
    for part in ("simulator", "images", "encoder", "offline", "adversarial", "online", "gd step", "cem step"):
        assert any(part in name for name in names), part
        assert part in first
    second = subprocess.run(
        [*command, "--compare", str(out)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert " x\n" in second.stdout

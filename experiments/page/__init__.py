"""The page of a study: one self-contained ``report.html``, made of ``report.json`` and the runs that it names."""

from experiments.page.write import write_page

__all__ = ["write_page"]

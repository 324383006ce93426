"""The words of the page, explained at their first use and once more at its end."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from utils.reading.yaml_file import read_yaml

GLOSSARY: dict[str, tuple[str, str]] = {
    key: (term["name"], term["meaning"])
    for key, term in read_yaml(Path(__file__).with_name("glossary.yaml"), dict).items()
}
"""What every term is called, and what it means."""


class Terms:
    """Writes a term, at its first use in the page as a link that explains itself."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, key: str, shown: str | None = None) -> str | Markup:
        """Write the term ``key`` of the glossary as ``shown``.

        Raises:
            KeyError: If there is no such term.
        """
        name = GLOSSARY[key][0] if shown is None else shown
        if key in self._used:
            return name
        self._used.add(key)
        slug = key.replace(" ", "-")
        return Markup('<a class="term" href="#term-{0}" aria-describedby="about-{0}">{1}</a>').format(slug, name)

"""Fetching an archive that somebody asked for: what it is and takes is said first, then it comes, or how to get it."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from utils.downloads import Expected, download
from utils.http import DownloadError
from utils.interrupts import StopRequested, stopping_at_once
from utils.machine import as_size
from utils.osf import BROWSER, OsfFile, describe, licence
from utils.printable import exit_with, printable_logs, write_printable
from utils.unpacking import check_room


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file that could be fetched.

    Attributes:
        url: Where it is.
        expected: What is known of it.
        licence: In words.
        headers: For the requests.
    """

    url: str
    expected: Expected
    licence: str
    headers: Mapping[str, str] = field(default_factory=dict)


def offer_of(file: OsfFile) -> Offer:
    """Find out what OSF says of a file."""
    return Offer(url=file.url, expected=describe(file), licence=licence())


def fetch_archive(
    archive: Path, find: Callable[[], Offer], agreed: bool, unpacked: int = 0, browser: str = BROWSER
) -> None:
    """Bring an archive here, unless it is here already, whoever put it there.

    Args:
        archive: Where to.
        find: Asks the server.
        agreed: Whether nobody has to be asked any more.
        unpacked: About how many bytes will be unpacked from it.
        browser: Address of its page.

    Raises:
        DownloadError: If it cannot be had, with the other way to get it; or if nobody agrees.
        ArchiveError: If the disk is too small.
    """
    if archive.exists():
        write_printable(f"{archive} is there already\n", sys.stdout)
        return
    try:
        offer = find()
        _ask(archive, offer, unpacked, browser, agreed)
        download(offer.url, archive, offer.expected, offer.headers)
    except _NotAgreedError as error:
        raise DownloadError(str(error)) from None
    except DownloadError as error:
        other = f"Or fetch it by hand: open {browser}, put the file at {archive}, and give the same command again"
        raise DownloadError(f"{error}. {other}") from None


class _NotAgreedError(DownloadError):
    """The user did not agree, so nothing was fetched."""


def _ask(archive: Path, offer: Offer, unpacked: int, browser: str, agreed: bool) -> None:
    """Say what would be fetched, and ask whether it shall be."""
    size = offer.expected.size
    come = archive.with_name(archive.name + ".part")
    here = come.stat().st_size if come.is_file() else 0
    known = as_size(size) if size is not None else "size not stated"
    partly = f" ({as_size(here)} of it are here)" if here else ""
    more = f", about {as_size(unpacked)} unpacked" if unpacked else ""
    write_printable(f"{archive.name}: {known}{partly}{more}; {offer.licence}; from {browser}\n", sys.stdout)
    check_room(archive.parent, max(0, (size or 0) - here) + unpacked)
    if agreed:
        return
    if not sys.stdin.isatty():
        raise _NotAgreedError("nothing was fetched: give --yes to fetch it")
    write_printable("Fetch it? [y/N] ", sys.stdout)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise _NotAgreedError("nothing was fetched")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Let a fetching command be given the answer to its question."""
    parser.add_argument("--yes", action="store_true", help="do not ask whether to fetch it once its size is known")


@contextlib.contextmanager
def fetching() -> Iterator[None]:
    """Run a fetching command: what goes wrong is one line, and a Ctrl-C or SIGTERM loses nothing and says so.

    Raises:
        SystemExit: Then.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    printable_logs()
    try:
        with stopping_at_once((signal.SIGTERM,)):
            yield
    except (KeyboardInterrupt, StopRequested) as error:
        sys.stderr.write("\ninterrupted; the same command goes on from there\n")
        sys.exit(error.code if isinstance(error, StopRequested) else 128 + signal.SIGINT)
    except (OSError, ValueError) as error:
        exit_with(f"fetch: {error}")

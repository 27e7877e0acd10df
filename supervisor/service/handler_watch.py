"""Watch of the handlers' folders: detects changed Python files, and links that lead to another folder.

Runs in the parent; needs the package watchfiles.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger("watch")

DEBOUNCE_MS = 400
"""Milliseconds within which changes count as one: editors and version control write many files together."""
LINK_INTERVAL = 1000
"""Milliseconds between two checks of the folders' links: inotify follows a link only at its start (inotify(7))."""
RETRY_INTERVAL = 2.0
"""Seconds until the next try after a failure to watch."""

Place = tuple[int, int] | None
"""Device and inode of a folder; None if there is none."""


class HandlerWatch:
    """Owns the set of watched folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._moved = asyncio.Event()
        self._is_blind = False
        """True while watching fails, so that changes may be missed."""

    def use(self, folders: Sequence[Path]) -> None:
        """Watch these folders from now on."""
        if folders != self._folders:
            self._folders = folders
            self._moved.set()

    async def run(self, changed: Callable[[str], object]) -> None:
        """Call `changed` with a description after each change, until cancelled."""
        logging.getLogger("watchfiles").setLevel(
            logging.INFO
        )  # on debug it logs every few seconds that nothing changed
        while True:
            self._moved.clear()
            folders = self._folders
            places = await asyncio.to_thread(places_of, folders)
            while not self._moved.is_set():  # also when `use` has named others and then these again
                places = await self._watch_once(folders, places, changed)

    async def _watch_once(
        self, folders: Sequence[Path], places: Sequence[Place], changed: Callable[[str], object]
    ) -> Sequence[Place]:
        """Watch these folders until their links lead elsewhere; return the new folders."""
        try:
            return await self._watch(folders, places, changed)
        except (OSError, RuntimeError) as error:  # what watchfiles raises, also for a folder that is gone
            if not self._is_blind:
                log.warning("handlers are not watched", reason=reason_of(error), folders=list(map(str, folders)))
            self._is_blind = True
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_INTERVAL):
                await self._moved.wait()
        return places

    async def _watch(
        self, folders: Sequence[Path], places: Sequence[Place], changed: Callable[[str], object]
    ) -> Sequence[Place]:
        from watchfiles import PythonFilter, awatch

        async for changes in awatch(
            *folders,
            watch_filter=PythonFilter(),
            debounce=DEBOUNCE_MS,
            stop_event=self._moved,
            rust_timeout=LINK_INTERVAL,
            yield_on_timeout=True,
        ):
            if self._is_blind:
                self._is_blind = False
                log.info("handlers are watched again")
                changed("the end of a time without a watch")
            if changes:
                changed(f"a change of {_listed({Path(path).name for _, path in changes})}")
            now = await asyncio.to_thread(places_of, folders)
            if now != places and None not in now:
                moved = {str(folder) for folder, old, new in zip(folders, places, now, strict=True) if old != new}
                changed(f"another folder at {_listed(moved)}")
                return now
        return places


def places_of(folders: Sequence[Path]) -> Sequence[Place]:
    """Return where these folders are now, through whatever links."""
    return [_place_of(folder) for folder in folders]


def _place_of(folder: Path) -> Place:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def reason_of(error: Exception) -> str:
    """Return why watching fails, and what to change."""
    # watchfiles keeps the number in the text only.  EMFILE: the limit of inotify_init(2) is per user.
    if f"(os error {errno.EMFILE})" in str(error):
        return "this user has no inotify instance left: raise the sysctl fs.inotify.max_user_instances"
    if "limit reached" in str(error):
        return "this user has no inotify watch left: raise the sysctl fs.inotify.max_user_watches"
    return str(error)


def _listed(names: set[str]) -> str:
    first, *more = sorted(names)
    shown = [first, *more[:2]]
    return ", ".join(shown) + (" and others" if len(names) > len(shown) else "")

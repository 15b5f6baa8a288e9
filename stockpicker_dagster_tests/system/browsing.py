"""Looking at pages in the system's Chromium: by axe-core, for width, and as pictures; no test lives here.

Where `STOCKPICKER_PICTURES` names a folder, every page that is looked at is kept there as a picture.
"""

import os
import shutil
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The browser's program; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def look(page: Any, name: str) -> None:
    """Asserts that axe-core finds nothing serious on the page as it is, and that it does not scroll sideways."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    serious = [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], f"{name}: {serious}"
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"], f"{name} scrolls sideways"
    if pictures := os.environ.get("STOCKPICKER_PICTURES"):
        page.screenshot(path=Path(pictures) / f"{name.replace(' ', '_')}.png", full_page=True)

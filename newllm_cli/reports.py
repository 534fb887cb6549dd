"""Reports in files: where they may go, and writing them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.errors import ConfigError, InputError
from newllm_core.files.atomic import refuse_existing, require_writable, write_atomically
from newllm_core.runtime.progress import Progress

if TYPE_CHECKING:
    from newllm_core.analysis.report.chart import Chart


def check_outputs(html: Path | None, png: Path | None, *, overwrite: bool) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        InputError: the file or folder exists and `overwrite` is false.
        ConfigError: PNG files are asked for and matplotlib is not there, or the page is not called
            one: with `overwrite` it might take the place of what is read.
    """
    if png is not None:
        from newllm_core.analysis.report.png import require_matplotlib

        require_matplotlib()
        if os.path.isdir(png) and not overwrite:
            raise InputError(
                f"{png} exists: choose another --png, or pass --overwrite to replace its charts"
            )
        require_writable(png / "chart.png" if os.path.lexists(png) else png)
    if html is not None:
        if html.suffix not in (".html", ".htm"):
            raise ConfigError(f"--html {html}: end it in .html, as {html.stem or 'report'}.html")
        refuse_existing(html, overwrite=overwrite, option="--html")


def write_outputs(
    html: Path | None,
    png: Path | None,
    make_page: Callable[[], str],
    make_charts: "Callable[[], Sequence[Chart]]",
    progress: Progress,
) -> None:
    """Write the page and the charts that were asked for."""
    if html is not None:
        text = make_page()
        write_atomically(html, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        progress.message(f"wrote {html}")
    if png is not None:
        from newllm_core.analysis.report.png import write_charts

        names = write_charts(make_charts(), png)
        progress.message(f"wrote {len(names)} charts to {png}")

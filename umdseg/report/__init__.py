"""Terminal table, figures, overlays and one self-contained HTML page."""

from __future__ import annotations

from umdseg.report.html import build_report
from umdseg.report.terminal import print_result

__all__ = ["build_report", "print_result"]

"""`python -m umdseg` is `umdseg`."""

from __future__ import annotations

from umdseg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

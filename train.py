"""Measure, adapt, measure again: python train.py model=... data=... adapter=..."""

from umdseg.runs.door import main

if __name__ == "__main__":
    raise SystemExit(main("train"))

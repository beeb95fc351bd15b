"""Score a model as it is, or a saved adapter: python evaluate.py adapter.path=RUN/adapter data=..."""

from umdseg.runs.door import main

if __name__ == "__main__":
    raise SystemExit(main("evaluate"))

"""One folder a study, `python -m examples.studies.NAME`; `common` is what two of them share."""

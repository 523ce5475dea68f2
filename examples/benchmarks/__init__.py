"""What things cost, beside other libraries: `python -m examples.benchmarks.NAME`."""

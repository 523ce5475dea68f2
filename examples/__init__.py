"""Stories to read, studies to repeat and benchmarks. Run from the checkout's root:
`python -m examples.quickstart`.
"""

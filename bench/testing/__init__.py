"""Models whose robustness is known, and the test that Winnow's verdicts are right about them.

Importing this imports neither torch nor the models: import the modules below for them.
"""

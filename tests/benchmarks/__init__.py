"""The benchmarks of speed and size print what they promise, and count right.

No test asks for times: each script runs with arguments so small that it says nothing about speed.
"""

"""Tests of `bench.data`."""

"""Tests of the defenses and their building blocks."""

"""Records in, Markdown out: pure functions, and the one that writes leaderboards."""

from bench.report.leaderboard import read_summaries, render_leaderboard, write_leaderboard

__all__ = ["read_summaries", "render_leaderboard", "write_leaderboard"]

"""Measuring: benchmarks, generation, scoring, judging, statistics, tables, figures and the report."""

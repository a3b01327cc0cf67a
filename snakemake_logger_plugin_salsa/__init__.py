"""What Snakemake prints while a grid runs. Snakemake finds its logger plugins by the name of their package."""

from eval.progress.log_handler import LogHandler

__all__ = ["LogHandler"]

"""Prints the config's JSON schema as YAML: config/schema.yaml, by which editors check and complete a config."""

import argparse
import sys

import yaml

from salsa.config.config import Config


def schema() -> str:
    """The schema's text."""
    return yaml.safe_dump(Config.model_json_schema(), sort_keys=False, allow_unicode=True, width=120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: the schema depends on the code alone."""


def run(arguments: argparse.Namespace) -> None:
    sys.stdout.write(schema())

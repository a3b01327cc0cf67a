"""Command `schema`: print the config's JSON schema as YAML (config/schema.yaml). Editors use it to check a config."""

import argparse
import sys

import yaml

from salsa.config.config import Config


def schema() -> str:
    """The JSON schema as YAML text."""
    return yaml.safe_dump(Config.model_json_schema(), sort_keys=False, allow_unicode=True, width=120)


def run(arguments: argparse.Namespace) -> None:
    sys.stdout.write(schema())

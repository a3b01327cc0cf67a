"""Stage `fetch`: download one split of a hub data set at its revision into a local JSONL file.

All later stages read this file and need no network.
"""

import argparse

from pydantic import ValidationError

from salsa.config.sections import DataSource
from salsa.data.rows import hub_rows
from salsa.runtime.errors import UserError
from salsa.runtime.jsonl import write_jsonl
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run
from salsa.runtime.settings import describe


def run(arguments: argparse.Namespace) -> None:
    try:
        source = DataSource(hub=arguments.hub, revision=arguments.revision, split=arguments.split)
    except ValidationError as error:
        raise UserError(describe(error, arguments.hub)) from None
    record = Run("fetch", source.model_dump(exclude_none=True), {}, {})
    rows = hub_rows(source)
    with output_file(arguments.out, record) as path:
        write_jsonl(path, rows)
    log.info("%s: %d bytes", arguments.out, arguments.out.stat().st_size)

"""Stage `download`: download a file and check its sha256."""

import argparse

import httpx2

from salsa.runtime.errors import UserError
from salsa.runtime.log import log
from salsa.runtime.outputs import output_file
from salsa.runtime.provenance import Run, sha256

RETRIES = 3
TIMEOUT_SECONDS = 60


def run(arguments: argparse.Namespace) -> None:
    record = Run("download", {"url": arguments.url, "sha256": arguments.sha256}, {}, {})
    with output_file(arguments.out, record) as path:
        try:
            transport = httpx2.HTTPTransport(retries=RETRIES)
            with httpx2.Client(transport=transport, timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
                reply = client.get(arguments.url)
                reply.raise_for_status()
        except httpx2.HTTPError as error:
            raise UserError(
                f"{arguments.url}: cannot download it ({error}): check the network and rerun, or put the file at "
                f"{arguments.out} yourself (its sha256 has to be {arguments.sha256})"
            ) from None
        path.write_bytes(reply.content)
        digest = sha256(path)
        if digest != arguments.sha256:
            raise UserError(
                f"{arguments.url}: its sha256 is {digest}, not {arguments.sha256}: the file was changed or truncated; "
                "try again, or correct the sha256 in the config"
            )
    log.info("%s: %d bytes", arguments.out, arguments.out.stat().st_size)

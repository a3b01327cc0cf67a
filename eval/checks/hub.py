"""Checks of the Hugging Face hub: whether this machine's token may read each model and data set at its revision."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import HfApi, get_session, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from eval.checks.check import PREPARE, TRY_SECONDS, Check, NotChecked
from salsa.config import layout
from salsa.config.config import Config, with_local_copies
from salsa.config.sections import HubModel
from salsa.runtime.errors import UserError
from salsa.runtime.provenance import RUN_FILE

ON_DISK = "is on disk"


def checks(config: Config) -> list[Check]:
    """One check of the token and one per repository; none if the config names no repository."""
    checks = []
    for name, entry in config.models.items():
        if entry.hub is not None:
            folder = Path(layout.root(config)) / "base" / name
            hub = entry.hub
            checks.append(Check("model", f"{hub.id}@{hub.revision[:7]}", partial(check_model, name, hub, folder)))
    repositories = defaultdict(set)
    for path, source in with_local_copies(config)[1].items():
        assert source.hub is not None and source.revision is not None and source.split is not None
        repositories[source.hub, source.revision].add((source.split, path))
    for (id, revision), splits in sorted(repositories.items()):
        files = {split: Path(path) for split, path in sorted(splits)}
        checks.append(Check("data set", f"{id}@{revision[:7]}", partial(check_data_set, id, revision, files)))
    return [Check("hub", "token", check_token), *checks] if checks else []


def hub_client() -> HfApi:
    """The hub's client with a timeout; without one its calls can hang."""
    get_session().timeout = TRY_SECONDS
    return HfApi()


def check_token() -> str:
    """Check that the hub accepts the token, and name its account."""
    if get_token() is None:
        raise NotChecked("no token is set: public repositories need none; for gated models set HF_TOKEN")
    with _errors("the token", "settings/tokens"):
        return f"belongs to {hub_client().whoami()['name']}"


def check_model(name: str, wanted: HubModel, folder: Path) -> str:
    """Check that a base checkpoint is on disk, or can be read at its revision and has safetensors."""
    if (folder / RUN_FILE).is_file() and json.loads((folder / RUN_FILE).read_text()).get("revision") == wanted.revision:
        return ON_DISK
    info = _info("model", f"models.{name}.hub: {wanted.id}", wanted.id, wanted.revision)
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
        raise UserError(
            f"models.{name}.hub: revision {wanted.revision} has no *.safetensors: name a revision that has, or convert "
            "the checkpoint and name its folder (local)"
        )
    return "can be read at this revision"


def check_data_set(id: str, revision: str, files: dict[str, Path]) -> str:
    """Check that a data set is on disk, or can be read at its revision and has the splits, as far as its card lists
    them."""
    missing = [split for split, path in files.items() if not path.exists()]
    if not missing:
        return ON_DISK
    info = _info("dataset", f"data set {id}", id, revision)
    listed = _splits(info.card_data)
    unknown = [split for split in missing if listed and split not in listed]
    if unknown:
        raise UserError(f"data set {id} has no split {unknown[0]}: use one of {', '.join(sorted(listed))}")
    return f"can be read at this revision: {', '.join(missing)}"


def _splits(card: Any) -> set[str]:
    """The splits that a data set's card lists; empty for a card without them."""
    described = (card or {}).get("dataset_info") or []
    configurations = described if isinstance(described, list) else [described]
    return {split["name"] for configuration in configurations for split in configuration.get("splits") or []}


def _info(kind: Literal["model", "dataset"], what: str, id: str, revision: str) -> Any:
    """The hub's description of a repository at its revision. Raises UserError if its files cannot be read."""
    with _errors(what, id if kind == "model" else f"datasets/{id}", revision):
        hub = hub_client()
        info = hub.repo_info(id, revision=revision, repo_type=kind, timeout=TRY_SECONDS)
        if info.gated:
            hub.auth_check(id, repo_type=kind)
        return info


@contextlib.contextmanager
def _errors(what: str, page: str, revision: str = "") -> Iterator[None]:
    """Turn the client's errors into UserErrors; `page` is the repository's or token's path on the hub."""
    endpoint = HfApi().endpoint
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"HF_HUB_OFFLINE is set: unset it, or {PREPARE}") from None
    except GatedRepoError:
        reason = "HF_TOKEN's account has no access" if get_token() else "no token is set"
        raise UserError(
            f"{what} is gated, and {reason}: accept its licence at {endpoint}/{page} and set HF_TOKEN to a token of "
            "that account (a fine-grained token needs the permission to read gated repositories)"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{what} has no revision {revision}: correct it in the config") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{what} does not exist at {endpoint}, or is private: correct its id, or set HF_TOKEN to a token of an "
            "account with access"
        ) from None
    except HFValidationError:
        raise UserError(f"{what} is not a repository id: write it as OWNER/NAME") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = {
            401: f"the hub refuses the token: create a new one at {endpoint}/settings/tokens and set HF_TOKEN",
            403: "the token lacks a permission: allow it to read repositories, in its settings",
            429: "too many requests: wait some minutes",
        }
        raise UserError(f"{what}: HTTP {status}: {fix.get(status, 'try again later')}") from None
    except (httpx.LocalProtocolError, UnicodeError):
        # The error's own text quotes the header, and with it the token.
        raise UserError(f"{what}: HF_TOKEN contains characters that no token has: set it again") from None
    except (httpx.HTTPError, OSError) as error:
        raise UserError(
            f"cannot reach {endpoint} ({str(error) or type(error).__name__}): repair the network, or {PREPARE}"
        ) from None

"""The hub: whether its models and data sets are there, at their revisions, for whoever this machine's token is."""

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

HERE = "is here already"


def checks(config: Config) -> list[Check]:
    """None where the config names nothing of the hub."""
    found = []
    for name, entry in config.models.items():
        if entry.hub is not None:
            folder = Path(layout.root(config)) / "base" / name
            hub = entry.hub
            found.append(Check("model", f"{hub.id}@{hub.revision[:7]}", partial(model, name, hub, folder)))
    repositories = defaultdict(set)
    for path, source in with_local_copies(config)[1].items():
        assert source.hub is not None and source.revision is not None and source.split is not None
        repositories[source.hub, source.revision].add((source.split, path))
    for (id, revision), wanted in sorted(repositories.items()):
        files = {split: Path(path) for split, path in sorted(wanted)}
        found.append(Check("data set", f"{id}@{revision[:7]}", partial(data_set, id, revision, files)))
    return [Check("hub", "token", token), *found] if found else []


def api() -> HfApi:
    """The hub's client, whose own calls would wait for ever."""
    get_session().timeout = TRY_SECONDS
    return HfApi()


def token() -> str:
    """Whose token it is."""
    if get_token() is None:
        raise NotChecked("there is none: nothing is needed for what is open; for gated models set HF_TOKEN")
    with _errors("the token", "settings/tokens"):
        return f"of {api().whoami()['name']}"


def model(name: str, wanted: HubModel, folder: Path) -> str:
    """A base checkpoint: its revision, its weights, and that they may be read."""
    if (folder / RUN_FILE).is_file() and json.loads((folder / RUN_FILE).read_text()).get("revision") == wanted.revision:
        return HERE
    info = _info("model", f"models.{name}.hub: {wanted.id}", wanted.id, wanted.revision)
    if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or ()):
        raise UserError(
            f"models.{name}.hub: no *.safetensors at {wanted.revision}: name a revision that has them, or convert it "
            "and name the folder (local)"
        )
    return "may be read, at this revision"


def data_set(id: str, revision: str, files: dict[str, Path]) -> str:
    """Its revision, and its splits where its card names them."""
    missing = [split for split, path in files.items() if not path.exists()]
    if not missing:
        return HERE
    info = _info("dataset", f"data set {id}", id, revision)
    known = _splits(info.card_data)
    wrong = [split for split in missing if known and split not in known]
    if wrong:
        raise UserError(f"split {wrong[0]}: there is none: take one of {', '.join(sorted(known))}")
    return f"may be read, at this revision: {', '.join(missing)}"


def _splits(card: Any) -> set[str]:
    """The splits that a data set's card names; not every card does."""
    described = (card or {}).get("dataset_info") or []
    each = described if isinstance(described, list) else [described]
    return {split["name"] for one in each for split in one.get("splits") or []}


def _info(kind: Literal["model", "dataset"], what: str, id: str, revision: str) -> Any:
    """What the hub says of a repository at its revision, if its files may be read."""
    with _errors(what, id if kind == "model" else f"datasets/{id}", revision):
        hub = api()
        info = hub.repo_info(id, revision=revision, repo_type=kind, timeout=TRY_SECONDS)
        if info.gated:
            hub.auth_check(id, repo_type=kind)
        return info


@contextlib.contextmanager
def _errors(what: str, page: str, revision: str = "") -> Iterator[None]:
    """The client's errors as what to do; `page` is the hub's about it."""
    endpoint = HfApi().endpoint
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError(f"offline: HF_HUB_OFFLINE is set: unset it, or {PREPARE}") from None
    except GatedRepoError:
        whose = "HF_TOKEN's account may not read it" if get_token() else "there is no token"
        raise UserError(
            f"{what} is gated, and {whose}: accept its licence at {endpoint}/{page} and set HF_TOKEN to a token of the "
            "account that did (a fine-grained one has to be allowed to read gated repositories)"
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"{what} has no revision {revision}: correct it in the config") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{what}: {endpoint} knows none, or shows it to others alone: correct its id, or set HF_TOKEN of an "
            "account that may read it"
        ) from None
    except HFValidationError:
        raise UserError(f"{what}: that is no id of the hub: write it as OWNER/NAME") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = {
            401: f"the token is refused: make a new one at {endpoint}/settings/tokens and set HF_TOKEN",
            403: "the token may not do this: allow it to read, in its settings",
            429: "too many calls: wait some minutes",
        }
        raise UserError(f"{what}: HTTP {status}: {fix.get(status, 'try again later')}") from None
    except (httpx.LocalProtocolError, UnicodeError):
        # These quote the header, and with it the token.
        raise UserError(f"{what}: the token has characters that none has: set HF_TOKEN anew") from None
    except (httpx.HTTPError, OSError) as error:
        raise UserError(
            f"cannot reach {endpoint} ({str(error) or type(error).__name__}): mend the network, or {PREPARE}"
        ) from None

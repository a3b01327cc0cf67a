"""Checkpoints that a policy passed on its way: POLICY/kept/STEPS, by `ppo.checkpoints_at`."""

from pathlib import Path

KEPT = "kept"


def kept_checkpoints(policy: Path) -> dict[int, Path]:
    """Folders by the number of steps, ascending; none for a policy that kept nothing."""
    folders = (policy / KEPT).glob("*") if (policy / KEPT).is_dir() else ()
    return dict(sorted((int(folder.name), folder) for folder in folders if folder.name.isdecimal()))

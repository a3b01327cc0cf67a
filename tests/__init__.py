from pathlib import Path

# Real benchmark files, which are not part of the project: in a folder beside it, or nowhere.
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

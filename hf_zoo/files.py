"""Files that are whole or absent, whenever the process is killed."""

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write at once: whoever reads `path`, even after a kill, finds the old content or the new."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
    os.replace(part, path)

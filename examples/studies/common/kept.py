"""What a study has found so far, in a JSON file that is whole or absent: a run stopped at any
moment can go on.
"""

import json
import os
from pathlib import Path
from typing import Any


def write(file: Path, value: Any) -> None:
    """Put `value` into `file`: into a temporary file beside it, which then
    takes its name in one step.
    """
    beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(value, indent=1), encoding="utf-8")
    os.replace(beside, file)


def read(file: Path) -> Any:
    """What `file` holds; None where there is none, or, with a line that says
    so, where half a file was left.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # no JSON, or no UTF-8
        print(f"{file} cannot be read ({error}); what it held is computed again")
        return None

"""kforge-run's own `kempnerforge`, for a program whose environment has none."""

import os

from . import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

# As in contract.py, which cannot be imported before it is found.
PACKAGE_FILE = "package"


def spec_of_package(name: str) -> "ModuleSpec | None":
    """Return where the package is; None where this node or container does not show it."""
    from importlib.util import spec_from_file_location

    try:
        with open(os.path.join(process.folder, PACKAGE_FILE), "rb") as file:
            package = os.fsdecode(file.read())
    except OSError:
        return None
    start = os.path.join(package, "__init__.py")
    if not os.path.isfile(start):
        return None
    return spec_from_file_location(name, start, submodule_search_locations=[package])

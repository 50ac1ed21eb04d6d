"""kforge-run's own `kempnerforge`, for a program whose environment has none."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


def spec_of_package(name: str, path: str) -> "ModuleSpec | None":
    """Return the package at a path; None where this node or container does not show it."""
    from importlib.util import spec_from_file_location

    start = os.path.join(path, "__init__.py")
    if not path or not os.path.isfile(start):
        return None
    return spec_from_file_location(name, start, submodule_search_locations=[path])

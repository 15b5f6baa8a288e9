"""Features of one's own: finds the Python module that a form names, and loads the features that it declares.

A module is code, and its author is trusted with everything that this program may do. Whether its features keep the
rules of time is tried before they are used, in `components.feature_trials`; nothing is computed here.
"""

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.home import home
from stockpicker_dagster.research.features.declaration import Feature, FeatureSet, shipped_sets
from stockpicker_dagster.strategy_form.base import check_name

FOLDER = "features"
"""Where modules lie in the state folder."""


@dataclass(frozen=True)
class FeatureModule:
    """A loaded module: the set that it declares, under its own name, and `code`, a digest of its sources.

    `module` is the name that Python knows it by.
    """

    features: FeatureSet
    path: Path
    code: str
    module: str


_loaded: dict[tuple[Path, str], FeatureModule] = {}
"""By file and digest: a form is validated many times, and a module that did not change is executed once."""


def feature_module(name: str) -> FeatureModule:
    """The module of that name: `features/<name>.py` or `features/<name>/` in the state folder, else an importable one.

    It declares features as the sets that ship do, and lists them as `FEATURES`. All sources of a package count into the
    digest; what a module imports from elsewhere does not. Raises `InvalidInput`, with file and line, where the name is
    taken or no name, the module is not found or cannot be executed, or `FEATURES` is not what it should be.
    """
    check_name(name, "a feature module")
    if name in shipped_sets():
        raise InvalidInput(f"feature module {name!r} has the name of a set that ships; give its file another name")
    spec = _find(name)
    assert spec.origin is not None
    path = Path(spec.origin)
    code = _digest(path)
    if (path, code) not in _loaded:
        _loaded[path, code] = FeatureModule(_declared(name, path, _executed(name, spec, path)), path, code, spec.name)
    return _loaded[path, code]


def _find(name: str) -> ModuleSpec:
    folder = home().root / FOLDER
    for path in (folder / f"{name}.py", folder / name / "__init__.py"):
        if path.is_file():
            inside = [str(path.parent)] if path.name == "__init__.py" else None
            found = importlib.util.spec_from_file_location(
                f"{__name__}.{name}", path, submodule_search_locations=inside
            )
            assert found is not None
            return found
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InvalidInput(
            f"feature module {name!r} was not found; put it at {folder / name}.py, or install it where Python finds it"
        )
    return spec


def _digest(path: Path) -> str:
    """Sixteen hexadecimal digits over the file, or over every source file of the package."""
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(path.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _executed(name: str, spec: ModuleSpec, path: Path) -> ModuleType:
    """The module, executed anew if it was executed here before: an edited one is not the one that was loaded then."""
    assert spec.loader is not None
    # What others have imported is theirs, and stays as it is.
    if spec.name == name and name in sys.modules and path not in {known for known, _ in _loaded}:
        return sys.modules[name]
    for stale in [each for each in sys.modules if each == spec.name or each.startswith(f"{spec.name}.")]:
        del sys.modules[stale]
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        what = str(error) or "no reason given"
        raise InvalidInput(
            f"feature module {name!r} cannot be loaded: {_place(path, error)}: {type(error).__name__}: "
            f"{what.splitlines()[0]}; correct it"
        ) from error
    return module


def _place(path: Path, error: BaseException) -> str:
    """File and line of a failure, as deep as the module's own files go."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    root = path.parent if path.name == "__init__.py" else path
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(path)


def _declared(name: str, path: Path, module: ModuleType) -> FeatureSet:
    listed = getattr(module, "FEATURES", None)
    if not isinstance(listed, list | tuple) or not all(isinstance(each, Feature) for each in listed):
        raise InvalidInput(
            f"feature module {name!r} ({path}) has no FEATURES; list there, as a tuple, the functions decorated with "
            "@feature"
        )
    chosen = FeatureSet.of(name, listed)
    for each in chosen.features:
        if each.fundamentals:
            raise InvalidInput(
                f"feature {each.name!r} of the module {name!r} needs figures of companies, which only sets that ship "
                "may have; make it from prices"
            )
        if each.name in ("symbol", "date"):
            raise InvalidInput(f"feature {each.name!r} of the module {name!r} has the name of a key; rename it")
    return chosen

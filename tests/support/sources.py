"""The sources of the package, and their imports."""

import ast
import functools
from pathlib import Path

import posebatch

PACKAGE = Path(posebatch.__file__).parent


def module_name(path: Path) -> str:
    """``run.driver`` for ``posebatch/run/driver.py``; a package has the name of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imported(source: str) -> set[str]:
    """Full names of everything imported anywhere in a source, inside functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what is imported"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_modules(source: str) -> set[str]:
    """Modules of the package among the imports, without the prefix ``posebatch``. Packages themselves do not count."""
    below = {name.partition(".")[2] for name in imported(source) if name.startswith("posebatch.")}
    return {name for name in below if name in SOURCES and not (PACKAGE / name.replace(".", "/")).is_dir()}


def libraries(source: str) -> set[str]:
    """Names of the foreign top-level packages among the imports."""
    return {name.split(".")[0] for name in imported(source)} - {"posebatch"}

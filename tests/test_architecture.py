"""The laws of the design, read off the imports: no import runs up, no room does another's work."""

from __future__ import annotations

import ast
from pathlib import Path

import graphopt
from graphopt.registry import builtin_passes

ROOT = Path(__file__).parent.parent

FLOORS = (
    {"_version", "errors"},
    {"files", "numerics"},
    {"packing"},
    {"ir"},
    {"runtime"},
    {"quality"},
    {"pass_base"},
    {"alterations", "lossy_pass", "options", "passes", "report", "stage"},
    {"easing", "lossy_plans", "outcome", "registry"},
    {"exact_stage", "lossy_stage", "recipe"},
    {"pass_manager", "shipped_recipes"},
    {"archiving", "assessment", "bench", "description", "drawing", "explain"},
    {"admission", "layers", "request", "speed", "tensor_noise"},
    {"execution"},
    {"optimizer"},
    {"catalog", "compare", "inspection", "rounded_activations", "testing"},
    {"studied_layers"},
    {"sensitivity_study"},
    {"cli"},
    {"__main__", "__init__"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    found = {}
    for path in [*ROOT.glob("graphopt/**/*.py"), *ROOT.glob("passes/**/*.py")]:
        relative = path.relative_to(ROOT)
        if relative.parts[:2] == ("graphopt", "passes"):
            continue
        parts = relative.with_suffix("").parts
        name = ".".join(parts) if parts[0] == "graphopt" else ".".join(("graphopt", *parts))
        found[name.removesuffix(".__init__")] = path
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(module: str, path: Path) -> set[str]:
    """What a module imports from graphopt while it is loaded; imports inside functions are later."""
    found: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            source = f"{base}.{node.module}" if node.level else node.module or ""
            found.add(source)
            found.update(f"{source}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == "graphopt"}


def all_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
    return found


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in modules()} <= set(FLOOR)


def test_no_import_runs_up() -> None:
    wrong = [
        f"{name} imports {source}"
        for name, path in modules().items()
        for source in imports(name, path)
        if source != "graphopt" and FLOOR.get(room(source), -1) > FLOOR[room(name)]
    ]
    assert not wrong


def test_no_circle() -> None:
    known = modules()
    edges = {name: imports(name, path) & known.keys() - {name} for name, path in known.items()}
    for name, path in known.items():
        if path.name == "__init__.py":  # a package gathers its parts; they do not need it
            edges[name] = set()
    left = dict(edges)
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_only_the_runtime_imports_onnxruntime() -> None:
    users = {
        name
        for name, path in modules().items()
        if any(s.split(".")[0] == "onnxruntime" for s in all_imports(path))
    }
    assert {room(name) for name in users} == {"runtime"}


def test_numerics_know_no_graph() -> None:
    for name, path in modules().items():
        if room(name) == "numerics":
            tops = {source.split(".")[0] for source in all_imports(path)}
            assert not tops & {"onnx", "onnx_graphsurgeon", "onnxruntime"}, name
            assert all(
                s.startswith("graphopt.numerics")
                for s in all_imports(path)
                if s.startswith("graphopt")
            ), name


def test_only_the_registry_imports_passes() -> None:
    for name, path in modules().items():
        if room(name) not in ("passes", "registry"):
            assert not any(s.startswith("graphopt.passes") for s in all_imports(path)), name


def test_file_name_is_pass_name() -> None:
    for name, step in builtin_passes().items():
        assert step.__module__.rsplit(".", 1)[-1] == name.replace("-", "_")


def test_the_public_face_is_sorted_and_there() -> None:
    assert sorted(graphopt.__all__) == graphopt.__all__
    assert all(getattr(graphopt, name) is not None for name in graphopt.__all__)

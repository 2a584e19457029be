"""What importing loads, the public names, and the direction of imports."""

import ast
import inspect
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import circuitry

PACKAGE = Path(circuitry.__file__).parent
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text())
PUBLIC = [alias.asname for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names]

LAYERS = (
    *(
        "errors",
        "files",
        "locks",
        "workers",
        "arrays",
        "embedding_set",
        "line_labels",
        "plot_style",
        "quadrature",
        "circuit",
        "provenance",
        "manifest",
    ),
    *("encoder", "narrowing", "adapters", "metrics", "templates", "sae", "feature_basis"),
    *("data", "data.captions", "clip"),
    *("baselines", "batches", "interventions", "nodes", "edges", "attribution", "cost"),
    *("graph_similarity", "statistics", "comparison", "feature_sharing"),
    *("probes", "separation", "separation_summary", "projection"),
    *("gram_matrices", "kernel_alignment", "representations", "representation_similarity"),
    *("causal_results", "transfer_results", "patching", "faithfulness", "pixels", "transfer", "validation", "planted"),
    *("data.class_table", "data.file_check", "data.images", "data.domains", "data.contact_sheet"),
    "model_settings",
    *("data.caption_table", "data.base_sets", "data.sketch_sets", "data.subsampling", "data.mixtures"),
    "data.mixture_files",
    *("data.toy_shapes_geometry", "data.toy_shapes_nature", "data.toy_shapes_things", "data.toy_shapes_vehicles"),
    *("data.toy_shapes", "data.toy_styles_raster", "data.toy_styles_flat", "data.toy_styles_light"),
    *("data.toy_styles_line", "data.toy_styles", "data.toy"),
    *("embeddings", "extraction", "subject", "causal_study", "image_features", "feature_names"),
    *("representation_study", "plots", "circuit_plot", "causal_plots", "mixture_plots", "embedding_plots"),
    *("representation_plots", "report", "comparison_report", "causal_report", "feature_report"),
    *("separation_report", "representation_report", "generalization", "generalization_plots"),
    *("training", "training.devices", "training.run_folder", "training.table", "training.presets", "training.clip"),
    *("training.evaluation", "training.open_clip_main", "training.labels", "training.supervised_model"),
    *("training.supervised_loop", "training.supervised", "training.sae", "training.study", "training.toy_study"),
    "command_line",
)
"""Every module; one imports only from those before it."""

WHEN_CALLED = {("encoder", "adapters")}
"""The exception: `Encoder.from_tower` asks the adapters, which are made of its stages."""

WITHOUT_TORCH = (
    *("circuit", "files", "quadrature", "provenance", "manifest", "graph_similarity", "statistics", "comparison"),
    *("causal_results", "transfer_results", "plots", "circuit_plot", "report", "templates", "command_line"),
    *("mixture_plots", "data.base_sets", "data.sketch_sets", "data.mixture_files", "feature_sharing"),
    *("generalization", "generalization_plots", "embedding_set", "separation_report", "projection"),
    *("probes", "representations", "representation_similarity", "representation_plots", "representation_report"),
)
"""What circuits are studied, and training distributions made, with on a laptop."""


def modules() -> dict[str, Path]:
    found = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in found.items() if name != "__init__"}


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports anywhere in it, by the name below the package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    below = {name.removeprefix("circuitry.") for name in names if name.startswith("circuitry.")}
    return below & modules().keys()


def loaded(statement: str) -> tuple[set[str], float]:
    """Top-level modules that a fresh interpreter has after a statement, and the seconds that it took."""
    code = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout)), time.perf_counter() - started


# Import time


def test_importing_the_package_is_light() -> None:
    names, seconds = loaded("import circuitry")
    assert not names & {"torch", "plotly", "captum", "open_clip", "transformer_lens", "pandas", "timm"}
    assert seconds < 5  # the one time that the specification asks for


def test_circuits_are_studied_without_torch() -> None:
    names, _ = loaded("import " + ", ".join(f"circuitry.{module}" for module in WITHOUT_TORCH))
    assert "networkx" in names
    assert not names & {"torch", "open_clip", "transformer_lens", "captum", "timm"}


def test_stored_circuits_are_compared_without_torch(tmp_path: Path) -> None:
    from tests.test_circuit import small_graph

    small_graph().save(tmp_path / "a")
    small_graph(domain="real").save(tmp_path / "b")
    names, _ = loaded(
        "import circuitry\n"
        f"graphs = [circuitry.AttributionGraph.load({str(tmp_path)!r} + '/' + name) for name in 'ab']\n"
        "assert circuitry.compare(graphs)['value'].tolist() == [1]\n"
        "circuitry.midpoint_rule(3)"
    )
    assert "torch" not in names


# Public names


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_resolve_and_are_described(name: str) -> None:
    value = getattr(circuitry, name)
    assert value.__name__ == name
    assert value.__module__.startswith("circuitry.")
    assert inspect.getdoc(value)
    assert not str(value.__doc__).startswith(f"{name}(")  # what a dataclass without one is given


def test_the_package_lists_its_public_names() -> None:
    assert len(PUBLIC) == len(set(PUBLIC)) > 20
    assert set(PUBLIC) <= set(dir(circuitry))
    assert set(vars(circuitry)["__all__"]) == set(PUBLIC)


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        circuitry.no_such_name  # type: ignore[attr-defined]  # noqa: B018


# Direction


def test_every_module_has_its_place() -> None:
    assert set(LAYERS) - modules().keys() == set()
    assert modules().keys() - set(LAYERS) == set()  # a new module goes into LAYERS, after all that it imports


def test_no_module_imports_a_later_one() -> None:
    place = {name: i for i, name in enumerate(LAYERS)}
    edges = {(name, other) for name in LAYERS for other in imported(modules()[name]) & place.keys()}
    assert len(edges) > 50
    backwards = {(a, b) for a, b in edges if place[b] >= place[a]}
    assert backwards == WHEN_CALLED


def test_the_exception_is_inside_a_function() -> None:
    for name, other in WHEN_CALLED:
        top = ast.parse((PACKAGE / f"{name}.py").read_text()).body
        assert not any(isinstance(node, ast.ImportFrom) and node.module == f"circuitry.{other}" for node in top)

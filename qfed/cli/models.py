"""qfed models: the models of the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qfed.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from qfed.config import RunConfig
    from qfed.quantum import Trainability

app = typer.Typer(help="Look at the models of the library.", no_args_is_help=True)
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. model.wires=8.")
]
_IMAGES = ("cnn", "quanvolution")


@app.command("list")
def list_(set_: Set = None) -> None:
    """Show every model with its size, its twin's size, and the variance of its gradients."""
    from qfed.models.library import LIBRARY

    table = Table(box=box.SIMPLE, title="models of the library: qfed simulate --set model.architecture=NAME")
    table.add_column("model", ratio=1)
    for heading in ("wires", "layers", "hybrid", "twin", "variance", "at start"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, entry in LIBRARY.items():
        config = _config(name, set_)
        size, twin, circle, start = _figures(config)
        what = f"[bold]{name}[/]: {escape(entry.title)}\n[dim]{escape(entry.source)}[/]"
        sizes = (config.model.wires, config.model.layers, size, twin)
        table.add_row(what, *(f"{number:,}" for number in sizes), _variance(circle), _variance(start))
    console = Console()
    console.print(table)
    console.print(
        "hybrid, twin: trained parameters on breast_cancer, of image models on digits. variance: the largest over the "
        "circuit's weights of Var(d output / d angle), weights uniform over the full circle, or as they start; a "
        "random circuit has about 2^-wires, '-' has nothing to train. More: qfed models show NAME",
        style="dim",
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name from: qfed models list.")],
    set_: Set = None,
) -> None:
    """Show one model: source, twin, sizes, the compiled circuit and its gradients."""
    from qfed.models.library import LIBRARY

    config = _config(name, set_)
    entry, model = LIBRARY[name], config.model
    size, twin, circle, start = _figures(config)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]{name}[/]: {escape(entry.title)}")
    rows = (
        ("set", f"model.architecture={name}  (architecture={model.architecture}, circuit={model.circuit})"),
        ("source", entry.source),
        ("defined in", entry.module),
        ("twin", f"{entry.twin} (model.kind=twin)"),
        ("parameters", f"{size:,} (its twin {twin:,}) on {config.data.source}"),
        ("wires, layers", f"{model.wires}, {model.layers}"),
        ("training", entry.trains),
        ("gradient variance", f"{_variance(circle)} over the full circle, {_variance(start)} at its start"),
    )
    for heading, text in rows:
        console.print(f"{heading + ':':20}{escape(text)}")
    module = _built(config, "hybrid")[0]
    layer = _layer(module)
    typer.echo(f"\n{layer.explain(model.wires)}", nl=False)


def _config(name: str, set_: list[str] | None) -> RunConfig:
    from qfed.config import ARCHITECTURES, load_config

    if name not in ARCHITECTURES:
        raise ConfigError(f"there is no model named {name!r}; they are {', '.join(ARCHITECTURES)}")
    source = ["data.source=digits"] if name in _IMAGES else []
    return load_config(None, [*source, f"model.architecture={name}", *(set_ or [])])


def _built(config: RunConfig, kind: str) -> tuple[nn.Module, int]:
    from qfed.config import ModelConfig
    from qfed.data import schema_of
    from qfed.models import build, flatten

    schema = schema_of(config.data)
    tree: dict[str, Any] = config.model.model_dump() | {"kind": kind}
    module = build(ModelConfig.model_validate(tree), schema.inputs, schema.outputs, config.seed)
    return module, len(flatten(module))


def _layer(module: nn.Module) -> Any:
    from qfed.quantum import QuantumLayer

    return next(part for part in module.modules() if isinstance(part, QuantumLayer))


def _figures(config: RunConfig) -> tuple[int, int, Trainability | None, Trainability | None]:
    """Sizes of hybrid and twin; gradient variances over the full circle and at the start (None without weights)."""
    from qfed.models.plateau import gradients_of

    module, size = _built(config, "hybrid")
    twin = _built(config, "twin")[1]
    layer = _layer(module)
    if not layer.weight_shapes:
        return size, twin, None, None
    return size, twin, gradients_of(layer, config.model), gradients_of(layer, config.model, start=True)


def _variance(found: Trainability | None) -> str:
    return "-" if found is None else f"{found.largest:.2g}{' (barren)' if found.barren else ''}"

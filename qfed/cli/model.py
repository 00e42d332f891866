"""qfed model: one trained model, its card, and files for programs that have no qfed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qfed.errors import ConfigError

app = typer.Typer(
    help="Hand over a trained model: show its card, verify it, export it. (The library of models: qfed models.)",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(help="A model's folder: model.npz, model.json, card.json.")]


class Form(StrEnum):
    """What a model can be exported to."""

    TORCH = "torch"
    ONNX = "onnx"


@app.command()
def show(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False) -> None:
    """Show a model's card: data, privacy, scores, provenance (unverified; see: qfed model verify)."""
    from qfed.federation.card import read_card
    from qfed.federation.cardtext import render

    card = read_card(folder)
    typer.echo(card.model_dump_json(indent=2) if as_json else render(card), nl=as_json)


@app.command()
def verify(
    folder: Folder,
    signer: Annotated[
        str | None, typer.Option("--signer", help="Fingerprint that one of the signatures must be of.")
    ] = None,
) -> None:
    """Check a model's files, card and signatures; fails when anything was changed."""
    from qfed.federation.card import verify as checked
    from qfed.federation.invitation import fingerprint_of

    found = checked(folder)
    held = [public.fingerprint() for public in found.signers]
    if signer is not None and fingerprint_of(signer) not in held:
        told = "; ".join(f"{p.name} {p.fingerprint()}" for p in found.signers) or "nobody"
        raise ConfigError(f"the card in {folder} is not signed by {fingerprint_of(signer)}; it is by {told}")
    typer.echo(f"{', '.join(found.card.files)}: as the card says")
    for public in found.signers:
        typer.echo(f"signed by {public.name}  {public.fingerprint()}")
    if not found.signers:
        typer.echo("no signature: the files fit together, but nobody vouches for them (as after a simulation)")
    elif signer is None:
        typer.echo("compare the fingerprint with the signer's own, over another channel, or give it: --signer")


@app.command()
def sign(
    folder: Folder,
    key: Annotated[Path, typer.Option("--key", help="coordinator.key, aggregator.key or identity.key of the signer.")],
) -> None:
    """Vouch for a model: add a signature to its card, after checking that the files are as it says."""
    from qfed.federation.card import sign as add
    from qfed.federation.card import verify as checked
    from qfed.federation.coordinator import input_errors
    from qfed.secagg import Identity

    checked(folder)
    with input_errors():
        identity = Identity.load(key)
    add(folder, identity)
    typer.echo(f"signed by {identity.name}  {identity.fingerprint()}")


@app.command()
def export(
    folder: Folder,
    to: Annotated[Form, typer.Option("--to", help="torch: a .pt2 that torch alone loads; onnx: a .onnx.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    circuit: Annotated[
        str | None, typer.Option("--circuit", help="FILE.py:FUNCTION of a model with your own circuit; it is run.")
    ] = None,
) -> None:
    """Write a model as one file that answers without qfed; it is loaded again and compared before it counts."""
    from qfed.models import load_model
    from qfed.models.export import export as write
    from qfed.models.export import inputs

    model = load_model(folder, circuit)
    difference = write(model, out, to.value)
    names = inputs(model)
    typer.echo(f"wrote {out}: answers differ from qfed predict's by {difference:.1g} at most")
    typer.echo(
        f"in: float32 (records, {len(names)}) in the table's units, columns {', '.join(names[:4])}"
        + (", ..." if len(names) > 4 else "")
    )
    classes = model.schema["classes"]
    typer.echo(f"out: {'probabilities of ' + ', '.join(classes) if classes else model.schema['target']}")
    load = f"torch.export.load({str(out)!r}).module()(records)"
    typer.echo(f"use: {load if to is Form.TORCH else f'onnxruntime.InferenceSession({str(out)!r})'}")

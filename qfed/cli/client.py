"""qfed client: the agent of a site, in the foreground; systemd or a container keeps it running."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Annotated

import typer


def client(
    site: Annotated[Path, typer.Option("--site", help="The site's folder, with site.toml in it.")] = Path(),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell of every request.")] = False,
) -> None:
    """Take part in a federation: connect to its aggregator, answer what the site's policy allows, until stopped."""
    from qfed_client.connect import agent_for, held_folder

    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )
    logging.getLogger("qfed").setLevel(logging.DEBUG if verbose else logging.INFO)
    with held_folder(site):
        agent = agent_for(site)

        def leave(*_: object) -> None:
            """Finish the message at hand, then leave; asked a second time, leave at once."""
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            agent.stop()

        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        agent.serve()
        if agent.loading:
            # A thread inside `import torch` cannot be stopped, and an interpreter that is taken down beneath it may
            # crash. What the agent keeps is closed and on the disk by now.
            logging.shutdown()
            os._exit(0)

"""A name of the library stands for a frame and a circuit."""

from __future__ import annotations

import pytest

from qfed.config import ARCHITECTURES, ModelConfig, load_config, to_toml
from qfed.errors import ConfigError


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_name_is_resolved_and_reads_back(name: str) -> None:
    config = load_config(None, [f"model.architecture={name}"])
    assert (config.model.architecture, config.model.circuit) == ARCHITECTURES[name]
    assert ModelConfig.model_validate(config.model.model_dump()) == config.model
    assert "architecture" in to_toml(config)


def test_sizes_are_the_circuits_own_unless_given() -> None:
    sizes = {name: ModelConfig.model_validate({"architecture": name}) for name in ("qcnn", "kernel", "cnn")}
    assert [(c.wires, c.layers) for c in sizes.values()] == [(8, 2), (4, 1), (4, 2)]
    assert ModelConfig.model_validate({"architecture": "qcnn", "wires": 4}).wires == 4
    assert ModelConfig.model_validate({"circuit": "qcnn"}).wires == 8


def test_a_frame_takes_another_circuit() -> None:
    config = ModelConfig.model_validate({"architecture": "cnn", "circuit": "basic_entangler"})
    assert (config.architecture, config.circuit) == ("cnn", "basic_entangler")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["model.architecture=qcn"], "did you mean 'qcnn'"),
        (["model.architecture=qcnn", "model.circuit=reuploading"], "has the circuit 'qcnn'"),
        (["model.architecture=kernel", "model.circuit=reuploading"], "belong together"),
        (["model.circuit=iqp"], "belong together"),
        (["model.architecture=qcnn", "model.wires=1"], "use 2 or more"),
        (["model.angle_limit=0"], "model.angle_limit"),
        (["model.architecture=3"], "model.architecture"),
    ],
)
def test_what_does_not_fit_is_refused(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, changes)
    assert said in str(caught.value)

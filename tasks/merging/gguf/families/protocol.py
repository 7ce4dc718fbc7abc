"""A family of models in llama.cpp: architecture, hyper-parameters and the order of its rows.

Names of tensors come from the package gguf. This table is apart from
`tasks/core/models/architectures` so that a change here reruns the merge and not the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gguf import MODEL_ARCH


@dataclass(frozen=True)
class GgufFamily:
    """One family.

    Attributes:
        model_type: In config.json.
        architecture: In llama.cpp.
        parameters: Hyper-parameters beyond those of every decoder: method of `GGUFWriter` -> field
            of the config.
        writes_head_size: Whether llama.cpp reads the size of a head from the file.
        interleaved: Tensors whose rows llama.cpp expects in another order: their kind -> the field
            of the config that holds their heads. llama.cpp rotates neighboring values of a head,
            transformers rotates values half a head apart.
    """

    model_type: str
    architecture: MODEL_ARCH
    parameters: Mapping[str, str]
    writes_head_size: bool = False
    interleaved: Mapping[str, str] = field(default_factory=dict)

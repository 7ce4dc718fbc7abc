from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.core.errors import PipelineError
from tasks.core.models.pretrained import load_tokenizer, max_length


def test_folder_without_a_tokenizer_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"n_positions": 7, "max_position_embeddings": 9}, 7),
        ({"max_position_embeddings": 9, "seq_length": 5}, 9),
        ({"seq_length": 5}, 5),
        ({}, 1024),
    ],
)
def test_max_length_takes_the_first_name_that_is_there(
    names: dict[str, int], expected: int
) -> None:
    assert max_length(SimpleNamespace(**names)) == expected

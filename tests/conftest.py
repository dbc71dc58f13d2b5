"""What all tests share: real microscope images where there are any, and images as files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(os.environ.get("SHIFTVAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def real_image() -> Callable[[str], Path]:
    """Path of a measured image; skips where the folder of measured images is absent."""

    def path(name: str) -> Path:
        if not (DATA / name).is_file():
            pytest.skip(f"{name} is not in {DATA} (measured images are not part of this project)")
        return DATA / name

    return path

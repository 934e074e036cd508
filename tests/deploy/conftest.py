"""The image, built once for all tests of what is deployed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image import (
    REQUIRE_VARIABLE,
    Containers,
    Image,
    ImageToolsMissingError,
    build_image,
    make_data_folder,
    remove_images,
)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Yield the image that `deploy/Dockerfile` makes. Skip where it can't be built."""
    try:
        built = build_image()
    except ImageToolsMissingError as missing:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        yield built
    finally:
        remove_images()


@pytest.fixture
def containers(image: Image, tmp_path: Path) -> Iterator[Containers]:
    """Yield what runs commands of the image, with an empty data folder; all are ended afterwards."""
    containers = Containers(image, tmp_path, make_data_folder(tmp_path))
    yield containers
    containers.close()

"""What the tests of `deploy/` share: the image, built once, and the rendered manifests."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.image import REQUIRE_VARIABLE as REQUIRE_IMAGE_VARIABLE
from tests.support.image import Containers, Image, ImageToolsMissingError, build_image, make_data_folder, remove_images
from tests.support.manifests import REQUIRE_VARIABLE as REQUIRE_KUSTOMIZE_VARIABLE
from tests.support.manifests import (
    KustomizeMissingError,
    Manifests,
    all_combinations,
    build_combination,
    require_kustomize,
)


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """Yield the image that `deploy/Dockerfile` makes. Skip where it can't be built."""
    try:
        built = build_image()
    except ImageToolsMissingError as missing:
        _skip_or_fail(missing, REQUIRE_IMAGE_VARIABLE)
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


@pytest.fixture(scope="session")
def kustomize() -> None:
    """Skip where kustomize is missing."""
    try:
        require_kustomize()
    except KustomizeMissingError as missing:
        _skip_or_fail(missing, REQUIRE_KUSTOMIZE_VARIABLE)


@pytest.fixture(scope="session")
def combined(kustomize: None, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Manifests]:
    """Return the base with every choice of components, rendered, by their names."""
    folder = tmp_path_factory.mktemp("combination")
    return {" ".join(["base", *chosen]): build_combination(chosen, folder) for chosen in all_combinations()}


def _skip_or_fail(missing: Exception, require_variable: str) -> NoReturn:
    if os.environ.get(require_variable) == "1":
        pytest.fail(str(missing))
    pytest.skip(str(missing))

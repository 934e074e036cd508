"""Fixtures of the tests of what is in `deploy`."""

import os
from collections.abc import Mapping

import pytest

from tests.support.manifests import (
    REQUIRE_VARIABLE,
    KustomizeMissingError,
    Manifests,
    all_combinations,
    build_combination,
    require_kustomize,
)


@pytest.fixture(scope="session")
def kustomize() -> None:
    """Skip where kustomize is missing."""
    try:
        require_kustomize()
    except KustomizeMissingError as missing:
        if os.environ.get(REQUIRE_VARIABLE) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def combined(kustomize: None, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Manifests]:
    """Return the base with every choice of components, rendered, by their names."""
    folder = tmp_path_factory.mktemp("combination")
    return {" ".join(["base", *chosen]): build_combination(chosen, folder) for chosen in all_combinations()}

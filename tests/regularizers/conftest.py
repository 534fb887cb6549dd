import pytest

from .cases import TRAINING_VARIANTS, VARIANTS, label


@pytest.fixture(params=VARIANTS, ids=label)
def variant(request):
    return request.param


@pytest.fixture(params=TRAINING_VARIANTS, ids=label)
def training_variant(request):
    return request.param

import pytest

from newllm_core import settings
from newllm_core.errors import ConfigError, PluginError
from newllm_core.regularizers import build
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.build import build_regularizers

D = 16


def make_config(name, section=None):
    return settings.resolve({"model": {"context_dim": D}, "phase1": {"reg": name}}, section or {})


def test_regularizers_are_made_from_their_options():
    config = make_config("covariance-ema", {"regularizer": {"momentum": "0.5"}})
    made, options = build_regularizers(config, 3)
    assert [regularizer.options.momentum for regularizer in made] == [0.5] * 3
    assert len(set(map(id, made))) == 3
    assert {regularizer.context_dim for regularizer in made} == {D}
    assert options == {"momentum": 0.5}


@pytest.mark.parametrize(
    ("section", "name", "words"),
    [
        ({}, "covariance", ["covariance-ema"]),
        ({"regularizer": {"momentun": 1}}, "covariance-ema", ["regularizer.momentun", "momentum"]),
        ({"regularizer": {"momentum": 3}}, "covariance-ema", ["regularizer.momentum is 3"]),
    ],
)
def test_unknown_regularizers_and_options(section, name, words):
    with pytest.raises(ConfigError) as caught:
        build_regularizers(make_config(name, section), 1)
    assert all(word in str(caught.value) for word in words)


def test_a_regularizer_that_cannot_be_made_is_named(monkeypatch):
    class Broken(Regularizer):
        def __init__(self, context_dim, options):
            raise RuntimeError("out of luck")

        def loss(self, contexts_ND, *, tokens_N):
            return contexts_ND.sum()

    monkeypatch.setattr(type(build.REGULARIZERS), "load", lambda self, name: Broken)
    with pytest.raises(
        PluginError, match=r"'none' of newllm .* cannot be made: RuntimeError: out of luck"
    ):
        build_regularizers(make_config("none"), 1)

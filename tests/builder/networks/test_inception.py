"""The network: the real Inception-v3, with weights from where they are asked for."""

import socket
from pathlib import Path

import numpy as np
import pytest

from lookalike_build.networks import inception, runtime
from lookalike_build.networks.extractor import IMAGENET, UNTRAINED, WeightsError
from lookalike_build.networks.inception import N_DIMS, Network
from lookalike_build.networks.runtime import optimizer_options
from lookalike_build.photos.decoding import SIDE

pytestmark = [
    pytest.mark.tensorflow,
    # TensorFlow and Keras use what NumPy and h5py deprecate.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def untrained() -> Network:
    return Network(UNTRAINED, precision="float32")


@pytest.fixture(scope="module")
def mixed() -> Network:
    return Network(UNTRAINED, precision="mixed")


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def features_of(network: Network, photos: np.ndarray) -> np.ndarray:
    return network.features(network.stage(list(photos)))


ROUNDING = 1e-6
"""How far rounding may move a feature, as a share of its length.

Sums in another order moved one by 1.1e-7 at most, between a photo alone and batches of 2 to 40, with
TensorFlow's own kernels and AVX2. bfloat16 moves one by 4e-3.
"""


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """How far the feature that moved most has moved, as a share of its length."""
    distances = np.linalg.norm(after.astype(np.float64) - before, axis=1)
    return float(np.max(distances / np.linalg.norm(before.astype(np.float64), axis=1)))


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    cosines = np.sum(one * other, axis=1)
    return float(np.min(cosines / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)))


def test_features_are_the_pooling_layers(untrained: Network, photos: np.ndarray) -> None:
    """By Keras's own way: its preprocessing, its predict, the global average pooling."""
    import keras

    features = features_of(untrained, photos)
    assert features.shape == (3, N_DIMS)
    assert features.dtype == np.float32
    keras.utils.set_random_seed(0)
    model = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    prepared = keras.applications.inception_v3.preprocess_input(photos.astype(np.float32))
    np.testing.assert_allclose(features, model.predict(prepared, verbose=0), rtol=1e-3, atol=1e-6)


def test_a_photo_has_the_same_features_in_any_company_but_for_rounding(
    untrained: Network, photos: np.ndarray
) -> None:
    alone = np.concatenate([features_of(untrained, photo[None]) for photo in photos])
    assert moved(alone, alone[[1, 2, 0]]) > 1000 * ROUNDING
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 2, 0]):
        assert moved(alone[order], features_of(untrained, photos[order])) < ROUNDING


def test_mixed_precision_hardly_moves_a_feature_and_leaves_float32_alone(
    untrained: Network, mixed: Network, photos: np.ndarray
) -> None:
    before = features_of(untrained, photos)
    assert least_cosine(before, features_of(mixed, photos)) > 0.999
    assert moved(before, features_of(untrained, photos)) < ROUNDING


def test_precision_is_mixed_by_itself_where_the_cpu_has_it(
    untrained: Network, mixed: Network, photos: np.ndarray
) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    right = mixed if {"avx512_bf16", "amx_bf16"} & set(flags) else untrained
    expected = features_of(right, photos)
    assert moved(expected, features_of(Network(UNTRAINED), photos)) < ROUNDING


def test_what_a_gpu_is_asked_for_runs_on_a_cpu_too(
    untrained: Network, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger batches and mixed precision, by itself."""
    for module in (inception, runtime):
        monkeypatch.setattr(module, "has_gpu", lambda: True)
    network = Network(UNTRAINED)
    assert network.batch == 128
    network.batch = 4  # a CPU takes a minute for 128
    assert optimizer_options("auto") == {"auto_mixed_precision": True}
    assert least_cosine(features_of(network, photos), features_of(untrained, photos)) > 0.999


def test_the_same_weights_are_the_same_model_and_others_another(
    untrained: Network, tmp_path: Path
) -> None:
    path = tmp_path / "saved.weights.h5"
    untrained._keras_model.save_weights(path)
    assert Network(UNTRAINED).model == untrained.model
    from_file = Network(str(path))
    assert from_file.model.digest == untrained.model.digest
    assert from_file.model.name == "inception_v3/pool_3/stretch-299-bilinear-1"
    from_file._keras_model.layers[1].set_weights([np.zeros((3, 3, 3, 32), np.float32)])
    from_file._keras_model.save_weights(path)
    assert Network(str(path)).model.digest != untrained.model.digest


def test_weights_saved_with_the_classes_are_taken_too(tmp_path: Path, photos: np.ndarray) -> None:
    import keras

    whole = keras.applications.InceptionV3(weights=None)
    path = tmp_path / "whole.weights.h5"
    whole.save_weights(path)
    features = features_of(Network(str(path), precision="float32"), photos)
    pooled = keras.Model(whole.input, whole.get_layer("avg_pool").output)
    prepared = keras.applications.inception_v3.preprocess_input(photos.astype(np.float32))
    np.testing.assert_allclose(features, pooled.predict(prepared, verbose=0), rtol=1e-3, atol=1e-6)


def test_weights_that_are_not_there_or_not_the_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file missing\.h5; give a Keras"):
        Network("missing.h5")
    other = tmp_path / "other.weights.h5"
    other.write_bytes(b"not HDF5")
    with pytest.raises(WeightsError, match=r"does not hold the weights"):
        Network(str(other))


def test_weights_that_cannot_be_downloaded_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"could not be downloaded .* --weights untrained"):
        Network(IMAGENET)

"""The frozen graph: one as small as may be, of the operations that the paper's graph has."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike_build.networks.extractor import Precision, WeightsError
from lookalike_build.networks.frozen_graph import FrozenGraph
from lookalike_build.photos import decoding as photo
from lookalike_build.photos.decoding import PhotoError
from lookalike_build.photos.memory_budget import MemoryBudget

pytestmark = [
    pytest.mark.tensorflow,
    # TensorFlow uses what NumPy deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings(r"ignore:::PIL\."),
]

N_CHANNELS = 8
N_DIMS = 2 * N_CHANNELS
SIDE = 299

Nodes = dict[str, Any]
Spoil = Callable[[Any, Nodes], object]

random = np.random.default_rng(0)
WEIGHTS = random.normal(size=(3, 3, 3, N_CHANNELS)).astype(np.float32)
MEAN, VARIANCE, BETA, GAMMA = random.random((4, N_CHANNELS), np.float32)


def definition() -> Any:
    """A GraphDef in the words of 2015, from JPEG to pool_3 and beyond, for one photo at a time."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.versions.producer = 8  # BatchNormWithGlobalNormalization was taken out of 9
    value = tf.compat.v1.AttrValue

    def node(op: str, name: str, *inputs: str, **attributes: Any) -> None:
        added = graph.node.add(op=op, name=name, input=inputs)
        for key, attribute in attributes.items():
            added.attr[key].CopyFrom(attribute)

    def kind(dtype: Any) -> Any:
        return value(type=dtype.as_datatype_enum)

    def constant(name: str, array: Any) -> None:
        tensor = tf.make_tensor_proto(array)
        node("Const", name, dtype=value(type=tensor.dtype), value=value(tensor=tensor))

    def integers(*numbers: int) -> Any:
        return value(list=value.ListValue(i=numbers))

    real = kind(tf.float32)
    valid = value(s=b"VALID")
    constant("DecodeJpeg/contents", b"")
    node("DecodeJpeg", "DecodeJpeg", "DecodeJpeg/contents", channels=value(i=3))
    node("Cast", "Cast", "DecodeJpeg", SrcT=kind(tf.uint8), DstT=real)
    constant("ExpandDims/dim", np.int32(0))
    node("ExpandDims", "ExpandDims", "Cast", "ExpandDims/dim", T=real)
    constant("ResizeBilinear/size", np.array([SIDE, SIDE], np.int32))
    node("ResizeBilinear", "ResizeBilinear", "ExpandDims", "ResizeBilinear/size", T=real)
    constant("Sub/y", np.float32(128))
    node("Sub", "Sub", "ResizeBilinear", "Sub/y", T=real)
    constant("Mul/y", np.float32(1 / 128))
    node("Mul", "Mul", "Sub", "Mul/y", T=real)
    constant("conv/weights", WEIGHTS)
    node(
        "Conv2D", "conv", "Mul", "conv/weights", T=real, strides=integers(1, 2, 2, 1), padding=valid
    )
    statistics = {"mean": MEAN, "variance": VARIANCE, "beta": BETA, "gamma": GAMMA}
    for name, array in statistics.items():
        constant(f"conv/{name}", array)
    node(
        "BatchNormWithGlobalNormalization",
        "conv/batchnorm",
        "conv",
        *(f"conv/{name}" for name in statistics),
        T=real,
        variance_epsilon=value(f=0.001),
        scale_after_normalization=value(b=True),
    )
    node("CheckNumerics", "conv/numerics", "conv/batchnorm", T=real, message=value(s=b"conv"))
    node("Identity", "conv/dependency", "conv/batchnorm", "^conv/numerics", T=real)
    node("Relu", "relu", "conv/dependency", T=real)
    constant("concat/dim", np.int32(3))
    node("Concat", "concat", "concat/dim", "relu", "relu", T=real, N=value(i=2))
    whole = integers(1, 149, 149, 1)
    ones = integers(1, 1, 1, 1)
    node("AvgPool", "pool_3", "concat", T=real, ksize=whole, strides=ones, padding=valid)
    constant("pool_3/_reshape/shape", np.array([1, N_DIMS], np.int32))
    node("Reshape", "pool_3/_reshape", "pool_3", "pool_3/_reshape/shape", T=real)
    return graph


def expected(data: bytes) -> np.ndarray:
    """What `definition` gives, by the operations of today."""
    import tensorflow as tf

    pixels = tf.cast(tf.io.decode_image(data, 3), tf.float32)[None]
    scaled = (tf.compat.v1.image.resize_bilinear(pixels, (SIDE, SIDE)) - 128) / 128
    convolved = tf.nn.conv2d(scaled, WEIGHTS, 2, "VALID")
    normal = tf.nn.batch_normalization(convolved, MEAN, VARIANCE, BETA, GAMMA, 0.001)
    once = tf.reduce_mean(tf.nn.relu(normal), (0, 1, 2)).numpy()
    return np.concatenate([once, once])


def encoded(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def soft(width: int = 400, height: int = 300, seed: int = 0, mode: str = "RGB") -> Image.Image:
    seeds = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(seeds).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def turned_and_profiled() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(soft(), "JPEG", exif=exif.tobytes(), icc_profile=b"a profile")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "small.pb"
    path.write_bytes(definition().SerializeToString())
    return path


@pytest.fixture(scope="module")
def graph(path: Path) -> FrozenGraph:
    return FrozenGraph(path, "float32")


def features(graph: FrozenGraph, *photos: bytes) -> np.ndarray:
    return graph.features(graph.stage([graph.prepare(photo) for photo in photos]))


JPEGS = {
    "baseline": encoded(soft(), "JPEG"),
    "progressive": encoded(soft(), "JPEG", progressive=True),
    "grey": encoded(soft(mode="L"), "JPEG"),
    "CMYK": encoded(soft(mode="CMYK"), "JPEG"),
    "larger": encoded(soft(1200, 900), "JPEG"),
    "a pixel": encoded(soft(1, 1), "JPEG"),
    "turned and profiled": turned_and_profiled(),
}


@pytest.mark.parametrize("name", JPEGS)
def test_features_of_a_jpeg_are_what_the_graph_makes_of_the_very_file(
    graph: FrozenGraph, name: str
) -> None:
    row = features(graph, JPEGS[name])
    assert row.shape == (1, N_DIMS)
    assert row.dtype == np.float32
    assert row.any()
    np.testing.assert_allclose(row[0], expected(JPEGS[name]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "GIF"])
def test_another_format_is_taken_as_a_browser_shows_it(graph: FrozenGraph, name: str) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    picture = soft(mode="P" if name == "GIF" else "RGB")
    row = features(graph, encoded(picture, name, **options))[0]
    shown = encoded(picture.convert("RGB"), "PNG")
    np.testing.assert_allclose(row, expected(shown), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 32])
def test_each_photo_has_its_row_in_any_company(graph: FrozenGraph, n: int) -> None:
    photos = [encoded(soft(100 + seed, 90, seed), "JPEG") for seed in range(n)]
    together = features(graph, *photos)
    assert together.shape == (n, N_DIMS)
    for one, row in zip(photos, together, strict=True):
        np.testing.assert_allclose(features(graph, one)[0], row, rtol=1e-5)


def test_a_photo_that_the_graph_refuses_is_a_row_of_nan_and_the_others_are_not(
    graph: FrozenGraph,
) -> None:
    good = JPEGS["baseline"]
    rows = graph.features(graph.stage([good, b"\xff\xd8\xffbroken", good]))
    assert np.isnan(rows[1]).all()
    np.testing.assert_array_equal(rows[[0, 2]], np.repeat(features(graph, good), 2, axis=0))


@pytest.mark.parametrize("data", [b"", b"text", JPEGS["baseline"][:-100]])
def test_what_is_broken_is_rejected_before_it_reaches_the_graph(data: bytes) -> None:
    with pytest.raises(PhotoError):
        FrozenGraph.prepare(data)


def test_a_photo_too_large_to_be_decoded_in_the_graph_is_rejected_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(photo, "DECODING", MemoryBudget(10**6))
    FrozenGraph.prepare(picture(100, 100))
    with pytest.raises(PhotoError, match=r"^300 x 300 pixels take 2 MB to decode, over the 1 MB"):
        FrozenGraph.prepare(picture(300, 300))


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "JPEG")
    return file.getvalue()


def test_photos_can_be_prepared_in_other_processes() -> None:
    prepare = pickle.loads(pickle.dumps(FrozenGraph.prepare))
    assert prepare(JPEGS["baseline"]) == JPEGS["baseline"]


@pytest.mark.parametrize("precision", ["mixed", "auto"])
def test_other_precisions_hardly_move_a_feature(
    graph: FrozenGraph, path: Path, precision: Precision
) -> None:
    photos = [JPEGS["baseline"], JPEGS["larger"]]
    a, b = features(graph, *photos), features(FrozenGraph(path, precision), *photos)
    cosines = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.999


def test_the_file_is_the_model(graph: FrozenGraph, path: Path, tmp_path: Path) -> None:
    assert graph.n_dims == N_DIMS
    assert graph.model.name == "graphdef/pool_3/jpeg-or-png-1"
    copy, other = tmp_path / "copy.pb", tmp_path / "other.pb"
    copy.write_bytes(path.read_bytes())
    assert FrozenGraph(copy).model == graph.model
    changed = definition()
    changed.versions.producer = 7
    other.write_bytes(changed.SerializeToString())
    assert FrozenGraph(other).model.digest != graph.model.digest


# Files that are refused


def without_output(graph: Any, nodes: Nodes) -> None:
    nodes["pool_3/_reshape"].name = "pool_3_is_missed"
    nodes["pool_3"].name = "pool"


def with_a_placeholder(graph: Any, nodes: Nodes) -> None:
    contents = nodes["DecodeJpeg/contents"]
    contents.name, contents.op = "photo", "Placeholder"


def giving_pixels(graph: Any, nodes: Nodes) -> None:
    pool = nodes["pool_3"]
    pool.op, pool.input[0] = "Identity", "DecodeJpeg"
    for key in ("ksize", "strides", "padding"):
        del pool.attr[key]
    pool.attr["T"].CopyFrom(nodes["Cast"].attr["SrcT"])
    graph.node.remove(nodes["pool_3/_reshape"])


def with_a_variable(graph: Any, nodes: Nodes) -> None:
    weights = nodes["conv/weights"]
    weights.op = "VariableV2"
    weights.attr["shape"].shape.CopyFrom(weights.attr["value"].tensor.tensor_shape)
    del weights.attr["value"]


def without_resizing(graph: Any, nodes: Nodes) -> None:
    nodes["Sub"].input[0] = "ExpandDims"


def with_an_unknown_operation(graph: Any, nodes: Nodes) -> None:
    nodes["relu"].op = "Unheard"


def with_a_lost_node(graph: Any, nodes: Nodes) -> None:
    nodes["Cast"].input[0] = "lost"


def of_today(graph: Any, nodes: Nodes) -> None:
    graph.versions.producer = 2000


SPOILT: dict[Spoil, str] = {
    without_output: r"has no tensor pool_3:0; .* its last nodes pool, pool_3/_reshape/shape, "
    "pool_3_is_missed; give classify_image_graph_def.pb of inception-2015-12-05",
    with_a_placeholder: r"has no tensor DecodeJpeg/contents:0; its placeholders are photo,",
    giving_pixels: r"must be string and pool_3:0 float, not string and uint8",
    with_a_variable: r"does not run in this TensorFlow: .* uninitialized value",
    without_resizing: r"the size of pool_3:0 depends on the photo's",
    with_an_unknown_operation: r"does not run in this TensorFlow: .*'Unheard'",
    with_a_lost_node: r"does not run in this TensorFlow: .*'lost'",
    of_today: r"does not run in this TensorFlow: .*removed in version 9",
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_graph_that_cannot_be_used_is_refused_with_the_reason(
    spoil: Spoil, tmp_path: Path
) -> None:
    graph = definition()
    spoil(graph, {node.name: node for node in graph.node})
    path = tmp_path / "spoilt.pb"
    path.write_bytes(graph.SerializeToString())
    assert re.search(SPOILT[spoil], refusal(path))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no tensor DecodeJpeg/contents:0; its placeholders are none"),
        (b'node {\n  name: "pool_3"\n}\n', "is not a frozen graph (a binary GraphDef, .pb)"),
        (b"\x89HDF\r\n\x1a\n", "is not a frozen graph (a binary GraphDef, .pb)"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.pb"
    path.write_bytes(data)
    assert reason in refusal(path)


def test_a_graph_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.pb").startswith("no graph file ")
    assert refusal(tmp_path).endswith(" cannot be read: Is a directory")


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        FrozenGraph(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message

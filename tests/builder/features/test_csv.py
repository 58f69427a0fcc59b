"""Features as CSV: read in every form that is met, written exactly, refused by line or product."""

import resource
from pathlib import Path

import numpy as np
import pytest

from lookalike_build.features.adopted import AdoptedFeatures
from lookalike_build.features.csv import write_feature_csv
from lookalike_build.features.store import CategoryFeatures, FeatureError
from support import random_features

ROWS = [[1.0, 2.0, 0.5], [3.0, 0.0, 0.25]]


def read(
    folder: Path, text: str | bytes, n_dims: int = 3
) -> tuple[list[object], list[list[float]]]:
    data = text.encode() if isinstance(text, str) else text
    (folder / "features_1.csv").write_bytes(data)
    category = AdoptedFeatures.open(folder, n_dims, "adopted").read(1)
    return list(category.product_ids), category.features.tolist()


@pytest.mark.parametrize(
    ("text", "product_ids"),
    [
        ("234,1,2,0.5\n1871,3,0,0.25\n", [234, 1871]),
        ("234,1,2,0.5\r\n1871,3,0,0.25", [234, 1871]),
        ("234, 1.0, 2e0, +5.000000e-01\n\n1871, 3, -0, 0.25\n\n", [234, 1871]),
        ("2.340000000000000000e+02,1,2,.5\n1.871000000000000000e+03,3,0,.25\n", [234, 1871]),
        ("0.000000000000000000e+00 1 2 .5\n9.007199254740992e+15 3 0 .25\n", [0, 2**53]),
        ("234\t1\t2\t.5\n1871\t3\t0\t.25\n", [234, 1871]),
        ("product_id,0,1,2\n234,1,2,.5\n1871,3,0,.25\n", [234, 1871]),
        ('"product_id","0","1","2"\r\n"234",1,2,.5\r\n"1871",3,0,.25\r\n', [234, 1871]),
        (b"\xef\xbb\xbf234,1,2,.5\n1871,3,0,.25\n", [234, 1871]),
        ("007,1,2,.5\n1871,3,0,.25\n", ["007", "1871"]),
        ('"A ""1"", x",1,2,.5\nü/3,3,0,.25\n', ['A "1", x', "ü/3"]),
        ("9007199254740993,1,2,.5\n9223372036854775807,3,0,.25\n", [2**53 + 1, 2**63 - 1]),
    ],
)
def test_forms_that_are_read(tmp_path: Path, text: str | bytes, product_ids: list[object]) -> None:
    assert read(tmp_path, text) == (product_ids, ROWS)


def test_products_are_put_in_order(tmp_path: Path) -> None:
    assert read(tmp_path, "30,3,3,3\n4,4,4,4\n100,1,1,1\n") == (
        [4, 30, 100],
        [[4, 4, 4], [3, 3, 3], [1, 1, 1]],
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("product_id,0,1,2\n", "holds no products"),
        ("1,1,2\n", r"line 1: has 2 features, expected 3 \(--dims\)"),
        ("1,1,2,3,4\n", r"line 1: has 4 features, expected 3 \(--dims\)"),
        ("1,1,2,3,\n", "line 1: has 4 features, expected 3"),
        ("1,1,2,3\n2,1,2\n", "line 2: has 2 features, expected 3"),
        ("\n1,1,2,3\n\n2,1,2,3,4\n", "line 4: has 4 features, expected 3"),
        ("product_id,0,1,2\n1,1,2,3\n2,1,2\n", "line 3: has 2 features, expected 3"),
        ("id,a,b,c\n1,1,2,3\n", 'line 1: field 2 must be a number, not "a"'),
        (",0,1,2\n1,1,2,3\n", "line 1: product_id must be 1 to 64 bytes"),
        ("1,1,2,3\n2,1,x,3\n", 'line 2: field 3 must be a number, not "x"'),
        ("1,1,2,3\n2,1,,3\n", 'line 2: field 3 must be a number, not ""'),
        ("1,1,2,3\n2,1,2,1.2e\n", 'line 2: field 4 must be a number, not "1.2e"'),
        ("1,1,2,3\n2,1,nan,3\n", "product 2 has a NaN or infinite feature"),
        ("1,1,2,3\n2,1,-inf,3\n", "product 2 has a NaN or infinite feature"),
        ("1,1,2,3\n2,0,0,0\n", "product 2 has features that are all zero"),
        ("1,1,2,3\n2,1e30,0,0\n", "product 2 has a length that float32 cannot square"),
        ("1,1,2,3\n2,1,2,3\n1,3,2,1\n", "product 1 is there more than once"),
        ("2.5e+00,1,2,3\n", r"line 1: product_id must be a whole number from 0, not 2.5e\+00"),
        ("-1.0e+00,1,2,3\n", r"line 1: product_id must be a whole number from 0, not -1.0e\+00"),
        ("9.1e+99,1,2,3\n", r"line 1: product_id must be exact, and beyond 2\^53"),
        (f"1,1,2,3\n{'x' * 65},1,2,3\n", "line 2: product_id must be 1 to 64 bytes .* not 65"),
        (b"\xff,1,2,3\n", "line 1: product_id must be valid Unicode"),
        (bytes(range(256)) * 2000, "features_1.csv: line 1: "),
        (b'"' + b"x" * 300_000, "features_1.csv: line 1: "),
    ],
)
def test_what_is_unfit_is_refused_by_line_or_product(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    with pytest.raises(FeatureError, match=said) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path}/features_1.csv: ")
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_large_files_are_read_a_piece_at_a_time(tmp_path: Path) -> None:
    features = random_features(3000, 0, n_dims=500)
    ids = np.arange(3000)[::-1].copy()
    np.savetxt(tmp_path / "features_1.csv", np.column_stack([ids, features]), delimiter=",")
    assert (tmp_path / "features_1.csv").stat().st_size > 2 * 2**24
    category = AdoptedFeatures.open(tmp_path, 500, "adopted").read(1)
    np.testing.assert_array_equal(category.product_ids, np.arange(3000))
    np.testing.assert_array_equal(category.features, features[::-1])


@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_the_text_is_that_of_the_paper(tmp_path: Path, n: int) -> None:
    features = random_features(n, 0)
    features[0, :6] = [0, -1.5, 1e-20, 3.4e38, 1e-45, 63.999996]
    path = tmp_path / "features_1.csv"
    write_feature_csv(path, CategoryFeatures(1, np.arange(n), features))
    lines = path.read_text().splitlines()
    expected = [",".join([str(row), *(f"{x:.18e}" for x in features[row])]) for row in range(n)]
    assert lines == expected


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "features_1.csv"
    path.write_text("the one before")
    category = CategoryFeatures(1, np.arange(100), random_features(100, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_feature_csv(path, category)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]

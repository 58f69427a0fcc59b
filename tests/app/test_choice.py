"""The file of a choice: what the report writes, and what is refused by name."""

from pathlib import Path

import pytest

from lookalike.choice import Choice, ChoiceError


def test_a_choice_has_a_method_for_each_category_as_releases_name_it(tmp_path: Path) -> None:
    path = tmp_path / "choice.json"
    path.write_text(
        '{"default":"behaviour","note":1,"categories":{"1":"image","01":"behaviour","Ä b":"image"}}'
    )
    choice = Choice.read(path)
    assert choice.default == "behaviour"
    assert choice.by_id() == {"1": "image", 1: "image", "01": "behaviour", "Ä b": "image"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read {}: No such file or directory"),
        ("", "{} is no choice of `report --choose`: Input data was truncated"),
        ("[]", "{} is no choice of `report --choose`: Expected `object`, got `array`"),
        ("[" * 100_000, "{} is no choice of `report --choose`: "),
        ('{"categories":{}}', "Object missing required field `default`"),
        ('{"default":"image"}', "Object missing required field `categories`"),
        ('{"default":"A","categories":{}}', "Invalid enum value 'A' - at `$.default`"),
        ('{"default":"none","categories":{}}', "Invalid enum value 'none' - at `$.default`"),
        ('{"default":"image","categories":{"1":"B"}}', "Invalid enum value 'B' - at `$.categories"),
        (
            '{"default":"image","categories":{"1":1}}',
            "Expected `str`, got `int` - at `$.categories",
        ),
        ("\xff", "{} is no choice of `report --choose`: "),
    ],
)
def test_another_file_is_refused_in_one_line(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "choice.json"
    if content is not None:
        path.write_text(content, "latin-1")
    with pytest.raises(ChoiceError) as caught:
        Choice.read(path)
    assert said.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(ChoiceError, match="Is a directory"):
        Choice.read(tmp_path)

"""Rules of a category of the release being written, see `lookalike.release.rules`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from lookalike.release.files import RULES, FileEntry
from lookalike.release.ids import IdType
from lookalike.release.manifest import CategoryEntry
from lookalike.release.rules import Rule, read_rules
from lookalike_build.files.whole import whole_file
from lookalike_build.publishing.category import Written
from lookalike_build.publishing.files import link_if_same


def with_rules(written: Written, folder: Path, rules: Sequence[Rule]) -> Written:
    """The category written in `folder`, with these rules in place of those it has."""
    entry, path = written.entry, folder / RULES
    files = {file: one for file, one in entry.files.items() if file != RULES}
    text = msgspec.json.encode(rules)
    known = entry.files.get(RULES)
    if rules and known and path.read_bytes() == text:
        return written
    if rules:
        with whole_file(path) as part:
            part.write_bytes(text)
        files[RULES] = FileEntry.of(path)
    elif known:
        path.unlink()
    else:
        return written
    entry = replace(entry, n_rules=len(rules))
    entry = replace(entry, files={file: files[file] for file in entry.file_names()})
    return written._replace(entry=entry, unchanged=False)


def with_rules_of(
    written: Written, folder: Path, published: tuple[Path, CategoryEntry], id_type: IdType
) -> Written:
    """The category written in `folder`, with the rules of a published one, its folder and entry.

    ReleaseError where these are damaged.
    """
    source, entry = published
    described = entry.files[RULES]
    if written.entry.files.get(RULES) == described:
        return written
    name = f"{source.name}/{RULES}"
    described.check_all(source / RULES, name)
    after = with_rules(written, folder, read_rules(source / RULES, name, id_type))
    link_if_same((source, entry.files), (folder, {RULES: after.entry.files[RULES]}))
    return after._replace(unchanged=written.unchanged)

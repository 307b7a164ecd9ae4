from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlite_caffe.coco.label_map import LabelMap, builtin, numbered
from ssdlite_caffe.coco.mapping import ClassMapping, Rule, builtin_mapping, load_mapping, parse_mapping
from ssdlite_caffe.coco.no_class import is_background, is_placeholder
from ssdlite_caffe.errors import LabelMapError

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda name: not is_background(name) and not is_placeholder(name)
)
RULES = st.lists(
    st.builds(Rule, NAMES, st.lists(NAMES, min_size=1, max_size=3, unique=True).map(tuple)),
    min_size=1, max_size=5, unique_by=lambda rule: rule.target,
)  # fmt: skip


def test_coco2voc_takes_the_rows_in_common_use() -> None:
    mapping = builtin_mapping("coco2voc")
    rows = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
    assert mapping.rows(builtin("coco")) == rows
    assert mapping.target() == builtin("voc")


@given(RULES)
def test_both_forms_read_back(rules: list[Rule]) -> None:
    mapping = ClassMapping(tuple(rules))
    as_json = json.dumps({rule.target: list(rule.sources) for rule in rules})
    as_lines = "\n".join(f"{json.dumps(r.target)}: [{', '.join(map(json.dumps, r.sources))}]" for r in rules)
    assert parse_mapping(as_json, "x.json") == mapping
    assert parse_mapping(as_lines, "x.yaml") == mapping


def test_lines_with_comments_and_bare_names() -> None:
    text = '# head\n\ngarden chair: chair  # one\r\nsofa : [ couch,big  sofa ]\n"a: b":"c # d"'
    assert parse_mapping(text, "x").rules == (
        Rule("garden chair", ("chair",)), Rule("sofa", ("couch", "big  sofa")), Rule("a: b", ("c # d",)),
    )  # fmt: skip


def test_the_first_alternative_that_the_model_has_is_taken() -> None:
    source = LabelMap.of_names(["cup", "couch", "settee"])
    assert parse_mapping("sofa: [divan, settee, couch]\ncup: cup", "x").rows(source) == (0, 3, 1)


def test_all_misfits_are_listed() -> None:
    mapping = parse_mapping("a: [persn, zz]\nb: [x, dog]\nc: dog\nd: background\ne: xx", "x")
    with pytest.raises(LabelMapError) as error:
        mapping.rows(builtin("coco"))
    assert str(error.value) == (
        "the mapping does not fit the model's 91 classes: the model lacks 'persn' or 'zz' (did you mean 'person'?), "
        "'xx'; "
        "'c' takes class id 18, which 'b' has taken already; 'd' takes class id 0, which background has taken already"
    )


def test_a_model_without_names_is_named_as_such() -> None:
    assert parse_mapping("a: class_2", "x").rows(numbered(4)) == (0, 2)
    with pytest.raises(LabelMapError, match=r"4 classes have no names .* asks for 'airplane'; convert the model again"):
        builtin_mapping("coco2voc").rows(numbered(4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b\nc", "m:2: 'c' is neither NAME: source nor NAME: [source, source]"),
        ("a:", "m:1: 'a:' is neither"),
        ("a: []", "m:1: 'a: []' is neither"),
        ("a: [b,]", "m:1: 'a: [b,]' is neither"),
        ("a:\n  - b", "m:1: 'a:' is neither"),
        ("a: b: c", "m:1: 'a: b: c' is neither"),
        ("a: [b", "m:1: 'a: [b' is neither"),
        ('"a\\q": b', "m:1: "),
        ('a: b\n\n"a": c', "m:3: class 'a' is given twice"),
        ("a: [b, c, b]", "m:1: class 'a' has the same source twice"),
        ("background: background", "m:1: 'background' is background, which always has id 0"),
        ('"": b', "m:1: '' is not a class name"),
        ('"a\\u000a": b', "is not a class name"),
        ('{"\\ud800": "b"}', "is not a class name"),
        ("# nothing", "m: the mapping has no classes"),
        ("{}", "m: the mapping has no classes"),
        ('{\n"a"}', "m:2:"),
        ('{"a": 1}', "m: 'a' must have a name or a list of names"),
        ('{"a": {"b": "c"}}', "m: 'a' must have a name or a list of names"),
        ('{"a": "b", "a": "c"}', "m: class 'a' is given twice"),
        ('{"a": []}', "m: class 'a' has no source"),
        ('{"a": ' + "[" * 100_000, "m is not a JSON object of names"),
        ('{"a": ' + "1" * 10_000 + "}", "m"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, message: str) -> None:
    with pytest.raises(LabelMapError) as error:
        parse_mapping(text, "m")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_load_takes_names_and_paths(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("a: b\n")
    assert load_mapping(tmp_path / "m.yaml").rules == (Rule("a", ("b",)),)
    assert load_mapping("coco2voc") is builtin_mapping("coco2voc")
    with pytest.raises(LabelMapError, match=r"neither a file nor a built-in mapping \(coco2voc\)"):
        load_mapping("voc2coco")
    with pytest.raises(LabelMapError, match="no built-in mapping"):
        builtin_mapping("voc2coco")
    with pytest.raises(LabelMapError, match="cannot read"):
        load_mapping(tmp_path / "absent.yaml")

import pytest

from orlop.cli.filters import Filters, labelled
from orlop.errors import Invalid


def test_values_of_one_key_are_alternatives_or_all_needed_as_the_caller_asks():
    wanted = Filters(["name=a", "name=b"], ("name",))

    assert wanted.any_of("name", lambda text: text == "b")
    assert not wanted.all_of("name", lambda text: text == "b")


def test_a_key_that_was_not_named_lets_everything_pass():
    wanted = Filters([], ("name", "dangling"))

    assert wanted.any_of("name", lambda text: False)
    assert wanted.flag("dangling", lambda: False)
    assert not wanted.names("name")


@pytest.mark.parametrize(
    ("text", "true", "passes"), [("1", True, True), ("false", True, False), ("FALSE", False, True)]
)
def test_a_flag_is_compared_with_what_is_so(text, true, passes):
    assert Filters([f"dangling={text}"], ("dangling",)).flag("dangling", lambda: true) == passes


@pytest.mark.parametrize("text", ["name", "size=1", "=x"])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(Invalid):
        Filters([text], ("name",))


@pytest.mark.parametrize(("text", "has"), [("a", True), ("a=1", True), ("a=2", False), ("b=", True), ("c", False)])
def test_labels_are_compared_by_key_or_by_key_and_value(text, has):
    assert labelled({"a": "1", "b": ""}, text) == has

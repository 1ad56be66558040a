import pytest

from orlop.cli.template import Template
from orlop.errors import Invalid

RECORD = {"Name": "x", "Labels": {"b": "2", "a.b": "1"}, "Attached": True, "Size": None, "List": ["p", "q"]}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("{{.Name}}-{{ .Name }}", "x-x"),
        (r"{{.Name}}\t{{.Name}}\n", "x\tx\n"),
        ("{{.Labels}}", "map[a.b:1 b:2]"),
        ("{{.Labels.b}}", "2"),
        ("{{.Labels.nope}}", "<no value>"),
        ("{{.Attached}} {{.List}} {{.Size}}", "true [p q] <no value>"),
        ("{{json .Labels}}", '{"a.b": "1", "b": "2"}'),
        ("{{json .Size}}", "null"),
        (
            "{{json .}}",
            '{"Attached": true, "Labels": {"a.b": "1", "b": "2"}, "List": ["p", "q"], "Name": "x", "Size": null}',
        ),
    ],
)
def test_actions_are_replaced_as_go_does_it(text, result):
    assert Template(text, RECORD).render(RECORD) == result


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{{.Nmae}}", "template {{.Nmae}}: no field 'Nmae'; there are Attached, Labels, List, Name, Size"),
        ("{{range .List}}", "template {{range .List}} is not understood"),
        ("{{}}", "template {{}} is not understood"),
    ],
)
def test_what_is_not_understood_is_named(text, complaint):
    with pytest.raises(Invalid) as error:
        Template(text, RECORD)

    assert complaint in str(error.value)

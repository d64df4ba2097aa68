"""Tasks of named entities, from a file to an annotation. A scripted server stands in for a teacher and says so in its name."""

import csv
import json
import random
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
import yaml
from scripted_server import Scripted, ScriptedServer
from zsd_command import environment, is_one_line, zsd

from zero_shot_distill.annotate.rows import read_annotations
from zero_shot_distill.core.definition import DataError
from zero_shot_distill.entities.align import Mention, MentionFault, align, occurrences, place_marked
from zero_shot_distill.entities.compare import compare_entities
from zero_shot_distill.entities.entity import Entity, read_entities
from zero_shot_distill.entities.tags import Scheme, TagSpan, scheme_of, tag_spans, write_tags
from zero_shot_distill.entities.words import join_tokens, split_words
from zero_shot_distill.prompt.parse import ParseError, parse_reply
from zero_shot_distill.prompt.template import PromptError, load_templates, response_format
from zero_shot_distill.task.load import load_examples
from zero_shot_distill.task.task import Example, Task, load_task

NAMES = {"PER": ["Ada Byron", "José Pérez", "Mary O'Neil"], "LOC": ["Ghent", "New York", "São Paulo"]}
SENTENCES = [
    [(name, None) if type is None else (name, type) for name, type in parts]
    for parts in (
        [("Ada Byron", "PER"), ("left", None), ("Ghent", "LOC"), (".", None)],
        [("In", None), ("New York", "LOC"), ("it", None), ("rains", None)],
        [("Mary O'Neil", "PER"), ("met", None), ("José Pérez", "PER"), ("in", None), ("São Paulo", "LOC")],
        [("Nobody", None), ("came", None), (".", None)],
    )
]


def conll(sentences, scheme: Scheme = Scheme.IOB2, between: str = "\t") -> str:
    "Sentences of phrases with their types, as CoNLL columns."
    lines = []
    for sentence in sentences:
        words, spans = [], []
        for phrase, type in sentence:
            words += phrase.split()
            spans += [TagSpan(len(words) - len(phrase.split()), len(words), type)] if type else []
        lines += [f"{word}{between}{tag}" for word, tag in zip(words, write_tags(len(words), spans, scheme), strict=True)] + [""]
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path):
    "A task of 40 sentences, added by the command."
    (tmp_path / "names.conll").write_text(conll(SENTENCES * 10))
    done = zsd(tmp_path, "tasks", "add", "names", "names.conll")
    assert done.status == 0, done.err
    return tmp_path


# Files


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize(("encoding", "between"), [("utf-8", "\t"), ("latin-1", " "), ("utf-8-sig", " ")])
def test_columns_in_every_scheme_say_the_same(tmp_path, scheme, encoding, between):
    (tmp_path / "names.conll").write_bytes(("-DOCSTART-" + between + "O\n\n" + conll(SENTENCES * 10, scheme, between)).encode(encoding))
    done = zsd(tmp_path, "tasks", "add", "names", "names.conll")
    assert done.status == 0, done.err
    task = load_task(tmp_path / "names.yaml")
    rows = [row for split in task.splits for row in load_examples(task, split)]
    found = {row.fields["text"]: [str(one) for one in read_entities(row.label)] for row in rows}
    assert len(rows) == 40
    assert found == {
        "Ada Byron left Ghent .": ["Ada Byron (PER)", "Ghent (LOC)"],
        "In New York it rains": ["New York (LOC)"],
        "Mary O'Neil met José Pérez in São Paulo": ["Mary O'Neil (PER)", "José Pérez (PER)", "São Paulo (LOC)"],
        "Nobody came .": [],
    }


@pytest.mark.parametrize("form", ["CSV", "other names", "comments"])
def test_other_layouts_say_the_same(tmp_path, form):
    "Lists in the cells of a CSV file; columns under other names; remarks between the words of a sentence."
    words, tags = [["Ada", "left", "Ghent"], ["nobody"]], [["B-PER", "O", "B-LOC"], ["O"]]
    rows = [{"tokens": tokens, "tags": tagged} for tokens, tagged in zip(words * 20, tags * 20, strict=True)]
    definition = {"name": "names", "metric": "entities", "types": {"PER": "", "LOC": ""}, "student_input": "{text}"}
    if form == "CSV":
        with (tmp_path / "names.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["tokens", "tags"], *([json.dumps(row["tokens"]), json.dumps(row["tags"])] for row in rows)])
        done = zsd(tmp_path, "tasks", "add", "names", "names.csv")
        assert done.status == 0, done.err
        task = load_task(tmp_path / "names.yaml")
    elif form == "other names":
        places = [[[0, 3, "PER"], [9, 14, "LOC"]], []]
        lines = [json.dumps({"body": " ".join(tokens), "found": found}) for tokens, found in zip(words * 20, places * 20, strict=True)]
        (tmp_path / "names.jsonl").write_text("\n".join(lines))
        aliases = {"text": "body", "spans": "found"}
        splits = {"train": tmp_path / "names.jsonl"}
        task = Task(**definition, fields={"text": "text"}, label_column="spans", column_aliases=aliases, splits=splits)
    else:
        sentences = [
            "# a remark of some words\n".join(f"{word} {tag}\n" for word, tag in zip(*pair, strict=True))
            for pair in zip(words, tags, strict=True)
        ]
        (tmp_path / "names.conll").write_text("\n".join(sentences * 20))
        splits = {"train": tmp_path / "names.conll"}
        task = Task(**definition, fields={"text": "tokens"}, tokens_column="tokens", label_column="tags", splits=splits)
    found = {row.fields["text"]: row.label for split in task.splits for row in load_examples(task, split)}
    assert {text: [str(one) for one in read_entities(label)] for text, label in found.items()} == {
        "Ada left Ghent": ["Ada (PER)", "Ghent (LOC)"],
        "nobody": [],
    }


def test_every_tag_is_looked_at(tmp_path):
    "Tags that tell the scheme at once do not hide one that is none."
    (tmp_path / "names.conll").write_text("Ada U-PER\n\nleft PLACE\n")
    splits = {"train": tmp_path / "names.conll"}
    task = Task(
        name="names",
        metric="entities",
        types={"PER": ""},
        fields={"text": "tokens"},
        tokens_column="tokens",
        label_column="tags",
        student_input="{text}",
        splits=splits,
    )
    with pytest.raises(DataError, match="tag 'PLACE' is none of O, B-TYPE"):
        load_examples(task, "train")


def test_random_tags_go_round_in_every_scheme():
    rng = random.Random(3)
    for _ in range(300):
        n = rng.randrange(1, 12)
        ends = sorted(rng.sample(range(n + 1), rng.randrange(0, n + 1) // 2 * 2))
        spans = [TagSpan(first, last, rng.choice("ab")) for first, last in zip(ends[::2], ends[1::2], strict=True)]
        for scheme in Scheme:
            assert tag_spans(write_tags(n, spans, scheme), scheme) == (spans, [])
        assert scheme_of([write_tags(n, spans, Scheme.BILOU)]) == (Scheme.BILOU if spans else Scheme.IOB2)


def test_labels_do_not_shift():
    "Empty tokens, emoji, right-to-left text, characters without width: each token has its own characters."
    tokens = ["", "👩‍👩‍👧", "שלום", "a\u200bb", "\ufeff", "New\u00a0York", "e\u0301", "İ", " "]
    text, places = join_tokens(tokens)
    assert [text[slice(*place)] for place in places if place] == [token for token in tokens if token.strip()]
    assert split_words(text, of_tokens=True) == [place for place in places if place]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a O\nb c O\n", ["names.conll:2: 3 columns, the lines before have 2"]),
        ("alone\n", ["names.conll:1: only one column"]),
        ("a PLACE\n", ["names.conll:1: tag 'PLACE' is none of O, B-TYPE"]),
        ("", ["names.conll: no rows"]),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, parts):
    (tmp_path / "names.conll").write_text(content)
    is_one_line(zsd(tmp_path, "tasks", "add", "names", "names.conll"), 2, *parts)


def test_a_type_that_the_task_does_not_name(folder):
    definition = folder / "names.yaml"
    definition.write_text(definition.read_text().replace("types: {PER: '', LOC: ''}", "types: {PER: ''}"))
    done = zsd(folder, "experiment", "--task", "names.yaml", "--model", "some-model", env=environment(OPENAI_API_KEY="sk-x"))
    is_one_line(
        done,
        2,
        "names.conll:",
        "type 'LOC' is none of the task's; add it to `types`, or say in `aliases` which it is (loc: none leaves it out)",
    )
    definition.write_text(definition.read_text() + "aliases: {loc: none}\n")
    task = load_task(definition)
    assert {one.type for row in load_examples(task, "train") for one in read_entities(row.label)} == {"PER"}


# Replies


TEXT = "Ada Byron left “New  York” 's port: NEW YORK pizza, Mozart's."
ROW = Example("1", {"text": TEXT}, None, None)


def test_every_mention_is_found_or_refused():
    "Random parts of a text, changed as teachers change words: what is found is in the text, and nothing is lost."
    rng = random.Random(5)
    words = split_words(TEXT)
    for _ in range(500):
        first = rng.randrange(len(words))
        start, end = words[first][0], words[min(first + rng.randrange(3), len(words) - 1)][1]
        said = rng.choice([TEXT[start:end], TEXT[start:end].upper(), f'"{TEXT[start:end]}"', TEXT[start:end] + " x", TEXT[start + 1 : end]])
        mentions = [Mention(said, rng.choice(["a", "b", None])) for _ in range(rng.randrange(1, 4))]
        made = align(TEXT, mentions, words)
        assert len({*made.entities}) == len(made.entities)
        assert all(TEXT[one.start : one.end] == one.text for one in made.entities)
        assert all(one.end <= other.start for one, other in zip(made.entities, made.entities[1:], strict=False))
        named = [mention for mention in mentions if mention not in [one.mention for one in made.refused]]
        assert bool(named) <= bool(made.entities)
        if not occurrences(TEXT, said) and mentions[0].type:
            assert {one.fault for one in made.refused} <= {MentionFault.INVENTED, MentionFault.UNKNOWN_TYPE}
            assert not made.entities


@pytest.mark.parametrize(
    ("mention", "found"),
    [
        ("New York", ["New  York", "NEW YORK"]),
        ("ada byron", ["Ada Byron"]),
        ("“Ada Byron”", []),
        ("art", []),
        ("Mozart", ["Mozart"]),
        ("Boston", []),
        ("", []),
    ],
)
def test_where_words_are(mention, found):
    assert [TEXT[slice(*place)] for place in occurrences(TEXT, mention)] == found


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("text", "mention", "found"),
    [
        ("We met at Café Müller.", "Cafe Muller", ["Café Müller"]),
        ("We met at Cafe Muller.", "Café Müller", ["Cafe Muller"]),
        ("São Paulo, not Sao Tome", "sao paulo", ["São Paulo"]),
        ("Jose is here, José is not", "Jose", ["Jose"]),  # as it is written, before anything else
        ("José and Josè left", "Jose", []),  # which of them?
        ("Cafés are here", "Cafe", []),
        ("Ελλάδα", "Ελλαδα", ["Ελλάδα"]),
        ("Фёдор пришёл", "Федор", ["Фёдор"]),
        ("Маи пришла", "Май", []),  # other letters, not other accents
        ("Łódź", "Lodz", []),
        ("ラガ", "ラカ", []),
        ("パ", "ハ", []),
        ("パリ", "ハリ", []),
        ("किला", "कला", []),
        ("กำ", "กา", []),
        ("한국", "하국", []),
        ("أحمد", "احمد", []),
    ],
)
def test_an_accent_that_a_teacher_drops_or_adds(text, mention, found, form):
    "A mention is found without its accents where there is one place that it can be; in other scripts marks are letters."
    text, mention = (unicodedata.normalize(form, one) for one in (text, mention))
    assert [text[slice(*place)] for place in occurrences(text, mention)] == [unicodedata.normalize(form, one) for one in found]
    made = align(text, [Mention(mention, "a")], split_words(text))
    assert [one.fault for one in made.refused] == [] if found else [MentionFault.INVENTED]
    marked = place_marked(text, text, [(0, len(text), Mention(text, "a"))], split_words(text))
    assert marked is not None


def test_marks_in_a_sentence_that_lost_its_accents():
    text, repeated = "Zoë met José.", "<PER>Zoe</PER> met <PER>Jose</PER>.".replace("<PER>", "").replace("</PER>", "")
    made, _ = place_marked(text, repeated, [(0, 3, Mention("Zoe", "a")), (8, 12, Mention("Jose", "a"))], split_words(text))
    assert [one.text for one in made.entities] == ["Zoë", "José"]


@pytest.mark.parametrize(
    ("template", "reply", "label"),
    [
        ("candidates", '{"candidates": [{"phrase": "Ada Byron", "reason": "a name", "type": "PER"}]}', ["Ada Byron (PER)"]),
        ("candidates", '{"candidates": []}', []),
        ("candidates", '{"candidates": [{"phrase": "Ada Byron", "reason": "a na', None),
        ("candidates", "I found no candidates.", None),
        (
            "list",
            '<think>[{"phrase": "pizza", "type": "LOC"}]</think>{"entities": [{"phrase": "Ada Byron", "type": "person"}]}',
            ["Ada Byron (PER)"],
        ),
        ("list", '[{"phrase": "Ada Byron", "type": "Person"}, {"phrase": "port", "type": "None"}]', ["Ada Byron (PER)"]),
        ("by-type", '{"PER": ["Ada Byron"], "LOC": ["Boston"]}', ["Ada Byron (PER)"]),
        ("by-type", '{"PER": null, "LOC": []}', []),
        ("inline", TEXT.replace("Ada Byron", "<PER>Ada Byron</PER>"), ["Ada Byron (PER)"]),
        ("inline", TEXT, []),
        ("inline", "<PER>Ada", None),
        ("reason-then-list", 'Ada Byron is a name of a person.\nFinal list: [{"phrase": "Ada Byron", "type": "PER"}]', ["Ada Byron (PER)"]),
    ],
)
def test_a_reply_is_a_list_of_entities_or_is_not_read(folder, template, reply, label):
    definition = folder / "names.yaml"
    definition.write_text(definition.read_text() + "aliases: {person: PER}\n")
    task = load_task(definition)
    if label is None:
        with pytest.raises(ParseError):
            parse_reply(reply, load_templates(task)[template], task, example=ROW, is_cut_off=True)
        return
    read = parse_reply(reply, load_templates(task)[template], task, example=ROW)
    assert [str(one) for one in read_entities(read.label)] == label
    if template == "reason-then-list":
        assert read.rationale == "Ada Byron is a name of a person."


def test_a_schema_names_the_phrase_before_the_reason_and_the_type_last(folder):
    "Servers that sort keys, and the store that does, keep this order."
    task = load_task(folder / "names.yaml")
    schema = response_format(load_templates(task)["candidates"], task)["json_schema"]["schema"]
    properties = list(schema["properties"]["candidates"]["items"]["properties"])
    assert properties == ["phrase", "reason", "type"] == sorted(properties)
    assert schema["properties"]["candidates"]["items"]["properties"]["type"]["enum"] == ["PER", "LOC", "none"]


@pytest.mark.parametrize(
    ("task", "keys", "fault"),
    [
        ("pocket_nli", {"read": "label-first"}, "unknown placeholder {examples}"),
        ("wnut17", {"read": "json"}, "lacks `examples`, which says how many and which"),
        ("wnut17", {"read": "label-first", "examples": {"n": 2}}, "`read: label-first` does not fit the task; use json, by-type, inline"),
    ],
)
def test_a_template_that_does_not_fit(tmp_path, task, keys, fault):
    fields = "".join(f"{{{name}}} " for name in load_task(task).fields)
    item = {"id": "mine", "user_message": fields + "{examples}", **keys}
    (tmp_path / "mine.yaml").write_text(json.dumps({"task": task, "templates": [item]}))
    with pytest.raises(PromptError, match=re.escape(fault)):
        load_templates(load_task(task), tmp_path / "mine.yaml")


def test_errors_add_up():
    "Each gold and each predicted entity is counted once, whatever overlaps what."
    rng = random.Random(7)
    text = "x" * 40

    def some() -> list[Entity]:
        ends = sorted(rng.sample(range(41), rng.randrange(0, 12) // 2 * 2))
        return [Entity.of(text, first, last, rng.choice("ab")) for first, last in zip(ends[::2], ends[1::2], strict=True)]

    for _ in range(500):
        gold, predicted = some(), some()
        counts = compare_entities(gold, predicted)
        assert (counts.n_gold, counts.n_predicted, counts.right) == (len(gold), len(predicted), len({*gold} & {*predicted}))


# Commands


def script(body, n) -> Scripted:
    "Lists every name that it knows, one that is nowhere, and one of a type that does not exist."
    text = body["messages"][-1]["content"].partition("Text: ")[2].partition("\n")[0]
    known = [{"phrase": name, "reason": "a name of the scripted teacher", "type": type} for type, names in NAMES.items() for name in names]
    found = [one for one in known if one["phrase"] in text]
    odd = [{"phrase": "Atlantis", "reason": "a name", "type": "LOC"}, {"phrase": "Ghent", "reason": "old", "type": "CITY"}]
    return Scripted(text=json.dumps({"candidates": found + odd}), prompt_tokens=100, completion_tokens=50)


def test_from_a_file_to_an_annotation(folder):
    with ScriptedServer(script) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-scripted")
        model = ("--model", "some-model", "--price-in", "1", "--price-out", "1", "--quiet")
        scored = zsd(
            folder, "experiment", "--task", "names.yaml", "--templates", "candidates", "--samples", "20", "--json", *model, env=env
        )
        assert scored.status == 0, scored.err
        found = json.loads(scored.out)["candidates"]["entities"]
        assert (found["f1"]["value"], found["macro_f1"], sum(found["refused"].values())) == (1.0, 1.0, 40)
        assert {body["max_tokens"] for body in server.bodies} == {400}, "a list is longer than a label"
        arguments = ("annotate", "--task", "names.yaml", "--mix", "candidates", "--splits", "train", *model)
        done = zsd(folder, *arguments, env=env)
        assert done.status == 0, done.err
        n_asked = len(server.bodies)
        assert zsd(folder, *arguments, env=env).status == 0
        assert len(server.bodies) == n_asked
        # A split without any reply has no F1, and stands in the same table.
        content = yaml.safe_load((folder / "names.yaml").read_text())
        (folder / "unseen.conll").write_text(conll([[("Grace Hopper", "PER"), ("slept", None)]]))
        (folder / "names.yaml").write_text(
            yaml.safe_dump(content | {"splits": content["splits"] | {"valid": "unseen.conll"}}, sort_keys=False)
        )
        both = zsd(folder, *arguments, "--splits", "train,valid", "--offline", env=env)
        assert both.status == 1, both.err
        assert "F1" in both.out
        assert re.search(r"^valid +1 ", both.out, re.MULTILINE)
        shutil.rmtree(next((folder / "zsd-work" / "annotations").glob("*/valid.jsonl")).parent)
    ((path, report),) = [(path.parent, json.loads(path.read_text())) for path in folder.glob("zsd-work/annotations/*/report.json")]
    rows = read_annotations(Path(path) / "train.jsonl")
    summary = report["splits"]["train"]
    assert (summary["n_labels"], summary["entities"]["f1"]["value"]) == (len(rows), 1.0)
    n_ghent = sum("Ghent" in row.input for row in rows)
    assert n_ghent
    assert summary["refused"] == {"not in the text": 2 * len(rows) - n_ghent, "type outside the set": n_ghent}
    assert all(one.why for row in rows for one in read_entities(row.label))
    assert "Atlantis (LOC): a name" in rows[0].rationale
    for words in ("F1", "mentions refused"):
        assert words in done.out


def test_a_student_is_trained_and_asked_by_the_usual_commands(folder):
    "A tiny encoder learns forty sentences by heart, more or less: the point is the way from file to predictions."
    from zero_shot_distill.ner.model import make_tiny_bert

    encoder = make_tiny_bert(folder / "tiny", [" ".join(phrase for phrase, _ in sentence) for sentence in SENTENCES])
    settings = ("--steps", "40", "--set", "eval_every=20", "--set", "learning_rate=0.01", "--quiet")
    done = zsd(folder, "train", "--annotations", "names.conll", "--task", "names.yaml", "--student", str(encoder), *settings)
    assert done.status == 0, done.err
    for words in ("gold alone", "F1 (test)", "missed"):
        assert words in done.out
    (student,) = (folder / "zsd-work" / "students").iterdir()
    # Such students are told apart from those that write answers, wherever records are read.
    (finding,) = json.loads(zsd(folder, "lint", "zsd-work", "--json").out)
    assert finding["fault"] == "tiny-validation"  # four rows
    assert finding["rows"][0].startswith("gold-seed0-")
    assert "What a paper says of named entities. Of 4 claims: 4 undetermined." in zsd(folder, "claims", "--runs", "zsd-work").out
    (folder / "new.csv").write_text("number,text\n1,Ada Byron left Ghent .\n2,Nobody came .\n")
    asked = zsd(folder, "predict", "--student", str(student), "--input", "new.csv", "--output", "out.jsonl")
    assert asked.status == 0, asked.err
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["number"] for row in rows] == ["1", "2"]
    assert all(row["text"][one.start : one.end] == one.text for row in rows for one in read_entities(row["predicted_label"]))
    assert read_entities(rows[0]["predicted_label"])
    is_one_line(zsd(folder, "predict", "--student", str(student), "--input", "new.csv", "--explain"), 2, "leave --explain and --read away")
    for odd, part in (
        (("--alpha", "0.3"), "--alpha is not used for entities; --method says whose sentences are learned: gold, distilled"),
        (("--method", "step-by-step"), "step-by-step"),
        (("--method", "linear"), "no training row has a teacher label"),
        (("--set", "alpha=1"), "NAME one of steps, batch_size"),
    ):
        is_one_line(
            zsd(folder, "train", "--annotations", "names.conll", "--task", "names.yaml", "--student", str(encoder), *odd, "--quiet"),
            2,
            part,
        )


def test_a_pipeline_with_students_of_the_other_kind_is_refused_before_anything_is_paid(folder):
    (folder / "run.yaml").write_text("name: names\ntask: names.yaml\nteacher: {model: some-model}\nstudents: {seeds: [0]}\n")
    done = zsd(folder, "run", "run.yaml", "--quiet", env=environment(OPENAI_API_KEY="sk-scripted"))
    is_one_line(done, 2, "students: task 'names' is one of entities, whose students tag words; say how under 'taggers'")

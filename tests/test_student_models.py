"Students of every family: the same losses and gradients as transformers computes, whatever stands in the batch, and scores that agree with answers."

from pathlib import Path

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from zero_shot_distill.student import packed
from zero_shot_distill.student.causal import CausalStudent
from zero_shot_distill.student.config import UnusableInput
from zero_shot_distill.student.model import (
    load_student_model,
    make_tiny_causal,
    make_tiny_t5,
    resolve_precision,
    rounded_weights,
    save_weights,
)
from zero_shot_distill.student.packed import AttentionPlan, Segments, packed_attention
from zero_shot_distill.student.seq2seq import Seq2SeqStudent
from zero_shot_distill.student.t5 import is_packable

VOCABULARY = 60
WORDS = [f"word{n}" for n in range(40)]


pytestmark = pytest.mark.usefixtures("one_thread")  # the models here are too small to share out


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PreTrainedTokenizerFast:
    return load_student_model(make_tiny_t5(tmp_path_factory.mktemp("tiny"), WORDS)).tokenizer


T5_SIZE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": VOCABULARY, "decoder_start_token_id": 0}


def t5(kind: str, dropout: float = 0.0) -> PreTrainedModel:
    "Narrow models with random weights; distances are told apart within the short texts of these tests."
    torch.manual_seed(1)
    size = T5_SIZE | {"dropout_rate": dropout, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
    if kind == "T5":  # head and embedding are one, and the decoder's output is scaled
        model = T5ForConditionalGeneration(T5Config(**size))
    elif kind == "T5 with a head":
        model = T5ForConditionalGeneration(T5Config(**size))
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    elif kind == "ByT5":  # more layers in the encoder than in the decoder
        model = T5ForConditionalGeneration(T5Config(**size | {"num_layers": 3, "num_decoder_layers": 1}, feed_forward_proj="gated-gelu"))
    else:
        family = (MT5Config, MT5ForConditionalGeneration) if kind == "mT5" else (T5Config, T5ForConditionalGeneration)
        model = family[1](
            family[0](**size, feed_forward_proj="gated-silu" if kind == "gated-silu" else "gated-gelu", tie_word_embeddings=False)
        )
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    # New weights leave the bias by distance near zero, and every norm at one.
    for name, weight in model.named_parameters():
        if "relative_attention_bias" in name or "layer_norm" in name:
            torch.nn.init.normal_(weight, mean=1.0, std=0.5)
    return model.eval()


def bart() -> PreTrainedModel:
    torch.manual_seed(1)
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 1}
    return BartForConditionalGeneration(BartConfig(vocab_size=VOCABULARY, d_model=16, dropout=0.0, **size, **heads)).eval()


def decoder(kind: str) -> PreTrainedModel:
    torch.manual_seed(1)
    special = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "initializer_range": 0.2}
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "SmolLM2":
        return LlamaForCausalLM(LlamaConfig(**size, **special, tie_word_embeddings=True)).eval()
    if kind == "Qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**size, **special, tie_word_embeddings=False)).eval()
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, **special)).eval()


KINDS = ("T5", "T5 with a head", "T5 v1.1", "gated-silu", "ByT5", "mT5")
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 1], [9, 6, 1], [1], [5, 6, 7, 4, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 1], [9, 7, 1]]
TARGETS = [[20, 1], [30, 31, 32, 33, 34, 35, 36, 1], [21, 22, 1], [1], [20, 1]]


def plain_loss(model: PreTrainedModel, prompts: list[list[int]], targets: list[list[int]]) -> torch.Tensor:
    "The mean over all target tokens, as one call of the model says it, padded as others do."
    pad = torch.nn.utils.rnn.pad_sequence
    return model(
        input_ids=pad([torch.tensor(ids) for ids in prompts], batch_first=True),
        attention_mask=pad([torch.ones(len(ids)) for ids in prompts], batch_first=True),
        labels=pad([torch.tensor(ids) for ids in targets], batch_first=True, padding_value=-100),
    ).loss


def gradients_of(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    "To 1e-5 of the largest value of each."
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-5 * max(1.0, gradient.abs().max().item()), msg=name)


# --- the losses


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_two_plain_calls(kind, tokenizer):
    "Label and rationale parts in one pass, weighted as step-by-step training does."
    model = t5(kind)
    assert is_packable(model)
    student, n_labels = Seq2SeqStudent(model, tokenizer), 3
    theirs = 0.3 * plain_loss(model, PROMPTS[:n_labels], TARGETS[:n_labels]) + 0.7 * plain_loss(
        model, PROMPTS[n_labels:], TARGETS[n_labels:]
    )
    expected = gradients_of(model, theirs)
    parts = student.part_losses(PROMPTS, TARGETS)
    n_tokens = [sum(map(len, part)) for part in (TARGETS[:n_labels], TARGETS[n_labels:])]
    ours = 0.3 * parts[:n_labels].sum() / n_tokens[0] + 0.7 * parts[n_labels:].sum() / n_tokens[1]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_same(gradients_of(model, ours), expected)


@pytest.mark.parametrize("kind", [*KINDS, "BART"])
def test_two_starts_of_one_encoding_are_two_plain_passes_of_the_decoder(kind, tokenizer):
    "As the method shared-encoder trains: labels begin as usual, rationales with a token of their own; one row has none, and one stands there twice."
    model = bart() if kind == "BART" else t5(kind)
    student, (a, b, c, *_) = Seq2SeqStudent(model, tokenizer), PROMPTS
    usual, other = model.config.decoder_start_token_id, 50
    parts = [
        (a, [20, 1], None),
        (b, [21, 1], None),
        (c, [22, 23, 1], None),
        (b, [21, 1], None),
        (b, [30, 31, 32, 33, 1], other),
        (a, [34, 1], other),
    ]
    calls = []
    model.get_encoder().register_forward_pre_hook(lambda *_, **__: calls.append(1))
    of_prompt = {tuple(ids): model.get_encoder()(input_ids=torch.tensor([ids])).last_hidden_state for ids in (a, b, c)}

    def plain(prompt: list[int], target: list[int], start: int | None) -> torch.Tensor:
        begun = torch.tensor([[usual if start is None else start, *target[:-1]]])
        logits = model(encoder_outputs=(of_prompt[tuple(prompt)],), decoder_input_ids=begun, use_cache=False).logits[0]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(target), reduction="sum")

    weights = torch.tensor([0.3, 0.1, 0.3, 0.2, 0.7, 0.6])
    theirs = torch.stack([plain(*part) for part in parts])
    expected = gradients_of(model, (weights * theirs).sum())
    calls.clear()
    ours = student.part_losses(*map(list, zip(*parts, strict=True)))
    assert len(calls) == (kind == "BART")  # the packed pass calls the encoder's layers, not the encoder
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert_same(gradients_of(model, (weights * ours).sum()), expected)


def test_an_input_is_encoded_once_for_both_of_its_targets(tokenizer, monkeypatch):
    from zero_shot_distill.student import t5 as packed_t5

    model, packed, stacks, pack, run = t5("T5 v1.1"), [], [], packed_t5.pack, packed_t5.run_stack
    monkeypatch.setattr(packed_t5, "pack", lambda texts, *more: packed.append(list(map(list, texts))) or pack(texts, *more))
    monkeypatch.setattr(packed_t5, "run_stack", lambda stack, *more: stacks.append(stack) or run(stack, *more))
    Seq2SeqStudent(model, tokenizer).part_losses([*PROMPTS[:3], PROMPTS[0]], TARGETS[:4], [None, None, None, 50])
    assert packed[0] == PROMPTS[:3]
    assert list(map(len, packed)) == [3, 4, 4]  # prompts, what the decoder reads, and what it should write
    assert stacks == [model.encoder, model.decoder]


def test_a_model_whose_encoder_has_words_of_its_own_runs_as_it_stands(tokenizer):
    "The packed pass looks up the words of both at once, so it is not for such a model."
    model = t5("T5 v1.1")
    assert is_packable(model)
    model.encoder.embed_tokens = torch.nn.Embedding(VOCABULARY, 16)
    assert not is_packable(model)
    own = model(input_ids=torch.tensor([PROMPTS[0]]), labels=torch.tensor([TARGETS[0]])).loss * len(TARGETS[0])
    torch.testing.assert_close(Seq2SeqStudent(model, tokenizer).part_losses(PROMPTS[:1], TARGETS[:1])[0], own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["T5 v1.1", "BART"])
def test_an_answer_begins_with_the_token_that_it_was_learned_with(kind, tokenizer):
    "Word by word what the model's own `generate` writes after that token, and another answer than the usual one."
    model = bart() if kind == "BART" else t5(kind)
    student = Seq2SeqStudent(model, tokenizer)
    begun = student.generate(PROMPTS, 6, start=31)
    for prompt, text in zip(PROMPTS, begun.texts, strict=True):
        written = model.generate(torch.tensor([prompt]), decoder_start_token_id=31, max_new_tokens=6, do_sample=False, num_beams=1)
        assert written[0, 0] == 31
        assert text == tokenizer.decode(written[0, 1:], skip_special_tokens=True)
    assert begun.texts != student.generate(PROMPTS, 6).texts


def test_another_encoder_decoder_is_run_by_its_own_forward(tokenizer):
    model = bart()
    assert not is_packable(model)
    student = Seq2SeqStudent(model, tokenizer)
    shifted_away = [ids[1:] or [1] for ids in TARGETS]  # BART's loss begins at the first label as well
    parts = student.part_losses(PROMPTS, shifted_away)
    torch.testing.assert_close(parts.sum() / sum(map(len, shifted_away)), plain_loss(model, PROMPTS, shifted_away))
    assert student.generate(PROMPTS, 3).texts == [student.generate([ids], 3).texts[0] for ids in PROMPTS]
    scores = student.score(PROMPTS, [[20, 1], [21, 22, 1]])
    torch.testing.assert_close(scores[:, 0], -student.part_losses(PROMPTS, [[20, 1]] * len(PROMPTS)).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "BART", "SmolLM2", "GPT-2"])
def test_losses_beside_peaks_are_the_same_and_peaks_are_the_greatest_probabilities(kind, tokenizer):
    "Of each token over the places of a part, by the model's own forward pass over that part alone."
    model = bart() if kind == "BART" else t5(kind) if kind in KINDS else decoder(kind)
    student = CausalStudent(model, tokenizer) if kind in ("SmolLM2", "GPT-2") else Seq2SeqStudent(model, tokenizer)
    losses, peaks = student.part_losses_and_peaks(PROMPTS, TARGETS)
    torch.testing.assert_close(losses, student.part_losses(PROMPTS, TARGETS), rtol=1e-5, atol=1e-5)
    for prompt, target, found in zip(PROMPTS, TARGETS, peaks, strict=True):
        if isinstance(student, CausalStudent):
            logits = model(input_ids=torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
        else:
            logits = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([target])).logits[0]
        torch.testing.assert_close(found, logits.softmax(-1).amax(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["T5", "mT5"])
def test_a_large_vocabulary_is_computed_in_pieces(kind, tokenizer, monkeypatch):
    "With nothing kept and a few rows at a time, nothing changes."
    model = t5(kind)
    student = Seq2SeqStudent(model, tokenizer)
    whole = student.part_losses(PROMPTS, TARGETS)
    expected = gradients_of(model, whole.sum())
    monkeypatch.setattr(packed, "PIECE", 5 * VOCABULARY)
    monkeypatch.setattr(packed, "MAX_KEPT", 0)
    pieces = student.part_losses(PROMPTS, TARGETS)
    torch.testing.assert_close(pieces, whole)
    assert_same(gradients_of(model, pieces.sum()), expected)


@pytest.mark.parametrize("kind", ["T5", "T5 v1.1"])
def test_a_parts_loss_does_not_depend_on_the_parts_beside_it(kind, tokenizer):
    student = Seq2SeqStudent(t5(kind), tokenizer)
    together = student.part_losses(PROMPTS, TARGETS)
    alone = [student.part_losses([prompt], [target])[0] for prompt, target in zip(PROMPTS, TARGETS, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("waste", [0.0, 1.0])
def test_attention_is_the_same_however_it_is_grouped(waste, monkeypatch):
    monkeypatch.setattr(packed, "MAX_WASTE", waste)
    torch.manual_seed(0)
    queries, keys = Segments([3, 1, 5, 2]), Segments([2, 7, 1, 7])
    rows, seen = torch.randn(64, 8), torch.randn(64, 16)
    grouped = packed_attention(rows, seen, AttentionPlan(queries, keys, 2))[: queries.n_tokens]
    for n, start, n_keys, first in zip(queries.lengths, queries.starts, keys.lengths, keys.starts, strict=True):
        q = rows[start : start + n].view(n, 2, 4).transpose(0, 1)
        k, v = (part.reshape(n_keys, 2, 4).transpose(0, 1) for part in seen[first : first + n_keys].split(8, 1))
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(0, 1).reshape(n, 8)
        torch.testing.assert_close(grouped[start : start + n], expected)


def test_dropout_is_applied_in_training_alone_and_leaves_the_mean_alone(tokenizer):
    model = t5("T5 v1.1", dropout=0.2)
    student = Seq2SeqStudent(model, tokenizer)
    without = student.part_losses(PROMPTS, TARGETS).sum()
    assert torch.equal(without, student.part_losses(PROMPTS, TARGETS).sum())
    model.train()
    torch.manual_seed(0)
    drawn = [student.part_losses(PROMPTS, TARGETS).sum() for _ in range(2)]
    assert drawn[0] != drawn[1]
    torch.manual_seed(0)
    assert torch.equal(drawn[0], student.part_losses(PROMPTS, TARGETS).sum())
    drawn[1].backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_attention_dropout_is_that_of_pytorch():
    "The expectation over many draws is attention without it, in values and gradients."
    torch.manual_seed(0)
    segments = Segments([4, 2])
    rows, seen = torch.randn(64, 8, requires_grad=True), torch.randn(64, 16, requires_grad=True)
    plan, pull = AttentionPlan(segments, segments, 2), torch.randn(6, 8)

    def once(dropout: float) -> list[torch.Tensor]:
        values = packed_attention(rows, seen, plan, dropout)[:6]
        # Linear in the values, so that the mean of the gradients is the gradient of the mean.
        return [values.detach(), *torch.autograd.grad((values * pull).sum(), [rows, seen])]

    draws = [once(0.3) for _ in range(3000)]
    for place, exact in enumerate(once(0.0)):
        torch.testing.assert_close(torch.stack([draw[place] for draw in draws]).mean(0), exact, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_in_half_precision_as_on_a_gpu(dropout, tokenizer, monkeypatch):
    "A CPU computes attention in float32; a GPU does not."
    model = t5("T5 v1.1", dropout=dropout)
    student = Seq2SeqStudent(model, tokenizer)
    expected = gradients_of(model, student.part_losses(PROMPTS, TARGETS).sum())
    monkeypatch.setattr(packed, "ATTENTION_DTYPES", {})
    model.train()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = student.part_losses(PROMPTS, TARGETS)
    for name, gradient in gradients_of(model, rough.sum()).items():
        assert gradient.isfinite().all(), name
        assert dropout or torch.cosine_similarity(gradient.flatten(), expected[name].flatten(), 0) > 0.98, name


def test_half_precision_is_near_full_precision(tokenizer):
    model = t5("T5 v1.1")
    student = Seq2SeqStudent(model, tokenizer)
    exact = student.part_losses(PROMPTS, TARGETS)
    expected = gradients_of(model, exact.sum())
    with torch.autocast("cpu", torch.bfloat16):
        rough = student.part_losses(PROMPTS, TARGETS)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.2)
    for name, gradient in gradients_of(model, rough.sum()).items():
        assert torch.cosine_similarity(gradient.flatten(), expected[name].flatten(), 0) > 0.98, name


# --- decoders


@pytest.mark.parametrize("kind", ["SmolLM2", "Qwen2", "GPT-2"])
def test_a_decoders_loss_is_that_of_the_answer_alone(kind, tokenizer):
    model = decoder(kind)
    student = CausalStudent(model, tokenizer)

    def one_by_one() -> list[torch.Tensor]:
        losses = []
        for prompt, target in zip(PROMPTS, TARGETS, strict=True):
            labels = torch.tensor([[-100] * len(prompt) + target])
            losses.append(model(input_ids=torch.tensor([prompt + target]), labels=labels).loss * len(target))
        return losses

    theirs = torch.stack(one_by_one())
    expected = gradients_of(model, theirs.sum())
    ours = student.part_losses(PROMPTS, TARGETS)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert_same(gradients_of(model, ours.sum()), expected)


def test_a_family_that_changes_its_logits_is_asked_for_them(tokenizer, monkeypatch):
    from zero_shot_distill.student import causal

    student = CausalStudent(decoder("SmolLM2"), tokenizer)
    expected = student.part_losses(PROMPTS, TARGETS)
    monkeypatch.setattr(causal, "_PLAIN_HEADS", frozenset())
    torch.testing.assert_close(student.part_losses(PROMPTS, TARGETS), expected)


def test_a_decoders_prompt_ends_with_the_separator_however_long_it_is(tmp_path):
    student = load_student_model(make_tiny_causal(tmp_path / "tiny", WORDS))
    long, short = student.encode_prompts([" ".join(WORDS), "word1"], max_tokens=8)
    last = student.tokenizer("\n###\n", add_special_tokens=False)["input_ids"]
    assert len(long) == 8
    assert len(short) == 1 + len(last)
    assert long[-len(last) :] == short[-len(last) :] == last
    assert student.encode_targets(["word1"])[0][-1] == student.tokenizer.eos_token_id


# --- answers and scores


def students(tokenizer) -> list:
    "One of each way of computing."
    return [Seq2SeqStudent(t5("T5 v1.1"), tokenizer), Seq2SeqStudent(bart(), tokenizer), CausalStudent(decoder("SmolLM2"), tokenizer)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_scores_are_losses_whatever_stands_beside_them(which, tokenizer):
    student, candidates = students(tokenizer)[which], [[20, 1], [21, 22, 23, 1], [1]]
    scores = student.score(PROMPTS, candidates)
    for place, candidate in enumerate(candidates):
        with torch.no_grad():
            expected = -student.part_losses(PROMPTS, [candidate] * len(PROMPTS))
        torch.testing.assert_close(scores[:, place], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(student.score(PROMPTS[:1], [candidate])[0, 0], expected[0], rtol=1e-4, atol=1e-4)
    own = [candidates[:2], candidates, candidates[2:], candidates[::-1], candidates[1:2]]
    for place, found in enumerate(student.score_own(PROMPTS, own)):
        expected = [scores[place, candidates.index(one)] for one in own[place]]
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert student.score([], candidates).shape == (0, 3)
    assert student.generate([], 3).texts == []


@pytest.mark.parametrize("maker", [make_tiny_t5, make_tiny_causal])
def test_after_learning_the_best_score_is_the_answer_written(maker, tmp_path):
    "Four animals and their sounds, learned by heart through the interface alone, saved and read again."
    pairs = {"the dog": "barks", "the cat": "meows loudly", "the cow": "moos", "a small bird": "sings"}
    folder = maker(tmp_path / "tiny", [*pairs, *pairs.values()])
    student = load_student_model(folder)
    prompts, targets = student.encode_prompts(list(pairs)), student.encode_targets(list(pairs.values()))
    optimiser = torch.optim.AdamW(student.model.parameters(), lr=1e-2)
    student.model.train()
    for _ in range(60):
        student.part_losses(prompts, targets).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    assert [text.strip() for text in student.generate(prompts, 4).texts] == list(pairs.values())
    assert student.model.training, "asking leaves a model as it was"
    (tmp_path / "saved").mkdir()
    save_weights(tmp_path / "saved", rounded_weights(student.model), folder)
    again = load_student_model(tmp_path / "saved")
    assert type(again) is type(student)
    assert again.score(prompts, targets).argmax(1).tolist() == [0, 1, 2, 3]
    assert not any(student.generate(prompts, 4).truncated)
    assert all(student.generate(prompts[1:2], 1).truncated), "two words and the end token do not fit into one"


# --- folders that are no student


def test_a_tokenizer_without_an_end_is_named_and_one_without_padding_gets_it(tmp_path):
    folder = make_tiny_causal(tmp_path / "tiny", WORDS)
    student = load_student_model(folder)
    student.tokenizer.pad_token = None
    student.tokenizer.save_pretrained(folder)
    assert load_student_model(folder).tokenizer.pad_token_id == student.tokenizer.eos_token_id
    student.tokenizer.eos_token = None
    student.tokenizer.save_pretrained(folder)
    with pytest.raises(UnusableInput, match=r"tiny: its tokenizer has no end token; name it as eos_token in tokenizer_config.json"):
        load_student_model(folder)


@pytest.mark.parametrize("kind", ["bert", "roberta", "vit"])
def test_a_model_that_writes_nothing_is_named(tmp_path, kind):
    folder = Path(tmp_path / "other")
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    with pytest.raises(UnusableInput, match=rf"other: a {kind} model; a student is an encoder-decoder, such as T5, or a decoder"):
        load_student_model(folder)


def test_fp16_is_refused():
    with pytest.raises(UnusableInput, match="precision 'fp16': must be auto, bf16 or fp32"):
        resolve_precision("fp16")

"""Prices as a provider charges them, and a cap that holds whatever happens."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from genai_prices.types import ModelPrice, Tier, TieredPrices

from zero_shot_distill.store.request import AttemptResult, Request, Response
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher import price as cost
from zero_shot_distill.teacher.budget import Budget, BudgetError
from zero_shot_distill.teacher.price import EMBEDDED_PRICE, Price, Usage, format_usd, price_of, total_usage

PRICE = Price(0.5, 1.5, "example", cached_input_usd_per_million=0.05, batch=Price(0.25, 0.75, "example, batch"))
DEAR = Price(2.0, 10.0, "example", 0.2, reasoning_usd_per_million=12.0, cache_write_usd_per_million=2.5, usd_per_request=0.012)


def response(request: Request, prompt_tokens: int | None, completion_tokens: int | None, **parts: object) -> Response:
    "A reply with a usage of our own."
    return Response(request.key, "yes", "stop", prompt_tokens, completion_tokens, 1.0, 1, "2026-01-01T00:00:00+00:00", "m", **parts)


def request(said: str, max_tokens: int = 50, **sampling: object) -> Request:
    return Request.build("m", [{"role": "user", "content": said}], max_tokens=max_tokens, **sampling)


# Prices


def test_a_long_prompt_has_another_price():
    tiers = TieredPrices(base=Decimal(2), tiers=[Tier(start=200_000, price=Decimal(4))])
    price = cost._from_table(ModelPrice(input_mtok=tiers, output_mtok=Decimal(8)), "example")
    assert (price.input_usd_per_million, price.longest_prompt) == (2.0, 200_000)
    assert price.cost_of(response(request("?"), 200_000, 1)) == pytest.approx(0.400008)
    assert price.cost_of(response(request("?"), 200_001, 1)) is None


def test_what_the_table_knows_is_taken_over():
    entry = ModelPrice(
        input_mtok=Decimal(2),
        output_mtok=Decimal(8),
        cache_read_mtok=Decimal("0.2"),
        cache_write_mtok=Decimal("2.5"),
        output_reasoning_mtok=Decimal(3),
        requests_kcount=Decimal(12),
    )
    price = cost._from_table(entry, "example")
    assert price == Price(2.0, 8.0, "example", 0.2, None, 3.0, 2.5, 0.012)
    reply = response(request("?"), 1_000_000, 1_000_000, cached_tokens=500_000, reasoning_tokens=900_000)
    assert price.cost_of(reply) == pytest.approx(1.0 + 0.1 + 0.8 + 2.7 + 0.012)


@pytest.mark.parametrize("prices", [{}, {"input_mtok": Decimal(2)}, {"output_mtok": Decimal(2)}, {"input_audio_mtok": Decimal(2)}])
def test_a_model_without_a_price_is_unknown(prices):
    assert cost._from_table(ModelPrice(**prices), "example") is None


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o", "gpt-3.5-turbo"])
def test_batch_costs_half_at_openai(model):
    price = price_of(model, "https://api.openai.com/v1/")
    assert price.batch.input_usd_per_million == price.input_usd_per_million / 2
    assert price.batch.output_usd_per_million == price.output_usd_per_million / 2
    assert price.batch.batch is None


def test_a_provider_without_batches_has_no_batch_price():
    assert price_of("deepseek-chat", "https://api.deepseek.com").batch is None


def test_the_dearest_hour_counts():
    found = {price_of("deepseek-v4-flash", now=datetime(2026, 11, 20, tzinfo=UTC) + timedelta(hours=hour)) for hour in range(24)}
    assert len(found) == 1


def test_the_source_says_how_old_the_table_is():
    now = datetime(2026, 11, 20, tzinfo=UTC)
    dated = price_of("gpt-4o-mini", now=now).source.split()[-1]
    assert "2025-01-01" < dated <= "2026-11-20"
    assert datetime.fromisoformat(dated)


@pytest.fixture
def store():
    with ResponseStore(":memory:") as store:
        yield store


def claim(budget: Budget, store: ResponseStore, *requests: Request, **settings) -> list[bool]:
    "Claim requests as a run does; says which of them may be sent."
    taken = store.exchange(wanted=requests, admit=lambda wanted: budget.admit(store, wanted), **settings).taken
    return [asked in taken for asked in requests]


# Usage


def test_usage_that_was_written_before_still_reads():
    old = {"n_responses": 2, "prompt_tokens": 10, "completion_tokens": 5, "n_uncounted": 0, "latency_s": 1.0, "cost_usd": 0.0}
    assert Usage(**old).cached_tokens == 0


def test_batch_and_chat_are_summed_at_their_own_prices():
    chat, batch = response(request("a"), 1000, 100), response(request("b"), 1000, 100, via="batch")
    assert total_usage([chat, batch], PRICE).cost_usd == pytest.approx(1.5 * PRICE.cost_of(chat))
    assert total_usage([chat, batch], replace(PRICE, batch=None)).cost_usd is None


@pytest.mark.parametrize(
    ("usd", "shown"), [(0, "$0.00"), (0.00005, "$0.000050"), (0.0001, "$0.0001"), (0.5, "$0.5000"), (12.345, "$12.35")]
)
def test_dollars_can_be_seen(usd, shown):
    assert format_usd(usd) == shown


# The worst case


@pytest.mark.parametrize("said", ["Is it so?", "naïve café", "数学の問題", "🙂" * 20, "\ud800", "", "a\n" * 300])
def test_no_byte_level_tokenizer_finds_more_tokens_than_bytes(said):
    # What every byte as a token would make, under a template that adds its most.
    worst = Budget(1.0, Price(1e6, 0.0, "a dollar a token")).worst_case_usd(request(said))
    assert worst >= len(said.encode("utf-8", "surrogatepass")) + 100


def test_a_schema_counts_as_a_part_of_the_prompt():
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": {"type": "object", "properties": {"label": {"enum": ["a"] * 50}}}},
    }
    budget = Budget(1.0, Price(1e6, 0.0, "a dollar a token"))
    assert budget.worst_case_usd(request("?", response_format=schema)) > budget.worst_case_usd(request("?")) + len(str(schema))


def test_reasoning_and_several_replies_are_within_the_limit():
    budget = Budget(1.0, Price(0.0, 1e6, "a dollar a token"))
    asked = Request.build("m", [{"role": "user", "content": "?"}], max_completion_tokens=200, n=3)
    assert budget.worst_case_usd(asked) == 600


def test_the_dearest_kind_of_input_is_reserved():
    one_token_out = 0.012 + 12e-6  # the request itself, and the one token that its reply may have
    plain = Budget(1.0, replace(DEAR, cache_write_usd_per_million=None)).worst_case_usd(request("?", 1))
    assert Budget(1.0, DEAR).worst_case_usd(request("?", 1)) - one_token_out == pytest.approx(1.25 * (plain - one_token_out))
    cached_is_dearer = replace(DEAR, cached_input_usd_per_million=4.0, cache_write_usd_per_million=None)
    assert Budget(1.0, cached_is_dearer).worst_case_usd(request("?", 1)) - one_token_out == pytest.approx(2 * (plain - one_token_out))


def test_batch_is_reserved_at_its_own_price():
    chat, batch = (Budget(1.0, PRICE, batch=batch).worst_case_usd(request("?")) for batch in (False, True))
    assert batch == pytest.approx(chat / 2)
    assert Budget(1.0, replace(PRICE, batch=None), batch=True).worst_case_usd(request("?")) == chat


@pytest.mark.parametrize("price", [None, DEAR])
@pytest.mark.parametrize("cap_usd", [-1.0, float("nan")])
def test_a_cap_is_a_number_from_zero_up(cap_usd, price):
    with pytest.raises(BudgetError):
        Budget(cap_usd, price)


def test_a_prompt_beyond_the_known_price_is_refused(store):
    with pytest.raises(BudgetError, match="shorten it"):
        claim(Budget(1.0, replace(PRICE, longest_prompt=1000)), store, request("x" * 1000))


def test_earlier_spending_counts(store):
    "Replies by chat and by batch at their own prices, one without usage and attempts without a reply at their worst case."
    asked = [request(str(number)) for number in range(5)]
    replies = [response(asked[0], 1000, 1000), response(asked[1], 1000, 1000, via="batch"), response(asked[2], None, None)]
    store.put_many([*zip(asked, replies, strict=False), (asked[3], response(asked[3], 1000, 1000, via="import"))])
    store.exchange(wanted=asked[4:])
    store.exchange([AttemptResult(asked[4], None, "no reply within 1 s")])
    budget = Budget(0.01, PRICE)
    budget.watch(asked, store)
    assert budget.spent_usd == pytest.approx(0.002 + 0.001)
    assert budget.unconfirmed_usd == pytest.approx(2 * budget.worst_case_usd(asked[4]))


def test_what_was_spent_before_does_not_count_where_a_run_has_a_budget_of_its_own(store):
    "What is asked again counts from then on."
    asked = request("?")
    store.exchange(wanted=[asked])
    store.exchange([AttemptResult(asked, None, "no reply within 1 s")], [asked])
    store.exchange([AttemptResult(asked, replace(response(asked, 100, 10), finish_reason="length"))])
    budget = Budget(0.01, PRICE)
    assert claim(budget, store, asked, retry_outcomes=["length"]) == [True]
    assert (budget.spent_usd, budget.unconfirmed_usd) == (0, 0)
    store.exchange([AttemptResult(asked, response(asked, 100, 20))], retry_outcomes=["length"])
    budget.refresh(store)
    assert budget.spent_usd == pytest.approx((100 * 0.5 + 20 * 1.5) / 1e6)
    total = Budget(0.01, PRICE)
    total.watch([asked], store)
    assert total.spent_usd == pytest.approx((200 * 0.5 + 30 * 1.5) / 1e6)
    assert total.unconfirmed_usd == pytest.approx(total.worst_case_usd(asked))  # the attempt before the reply that was asked again


def test_an_embedded_teacher_has_no_cap(store):
    budget = Budget(0.0, EMBEDDED_PRICE)
    for number in range(100):
        asked = request(f"{number}")
        assert claim(budget, store, asked) == [True]
        store.exchange([AttemptResult(asked, response(asked, 10**6, 10**6))])
    budget.refresh(store)
    assert (budget.spent_usd, budget.left_usd) == (0, 0)


# The cap


@pytest.mark.parametrize("price", [PRICE, DEAR], ids=["plain", "dear"])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 25))])
def test_the_cap_is_never_passed(seed, batch, price, store):
    "Random questions, prices, orders and outcomes: what a provider could have charged, summed exactly, stays under the cap at every moment."
    rng = random.Random(seed)
    asked = [request(f"{number} {'é' * rng.randint(0, 300)}", rng.randint(1, 200)) for number in range(300)]
    one = Budget(1.0, price, batch).worst_case_usd(asked[0])
    budget = Budget(one * rng.choice([0, 0.5, 1, 3, 20, 100, 1000]), price, batch)
    under_way: list[Request] = []
    charged = Fraction(0)
    n_refused = 0
    batch_id = "b1" if batch else None
    for question in asked:
        if claim(budget, store, question, batch_id=batch_id) == [True]:
            under_way.append(question)
        else:
            n_refused += 1
            assert budget.worst_case_usd(question) > budget.left_usd - 1e-12
        while under_way and rng.random() < 0.6:
            settled = under_way.pop(rng.randrange(len(under_way)))
            charged += settle_somehow(store, settled, price, batch, rng)
            budget.refresh(store)
        if not (batch and price.batch):  # an attempt that left its batch without a reply counts at the plain price
            assert budget.spent_usd + budget.reserved_usd + budget.unconfirmed_usd <= budget.cap_usd * (1 + 1e-12)
        assert charged <= Fraction(budget.cap_usd) + Fraction(1, 10**12)
        assert charged <= Fraction(budget.spent_usd + budget.unconfirmed_usd) + Fraction(1, 10**12)
        assert min(budget.reserved_usd, budget.unconfirmed_usd, budget.left_usd) >= 0
    assert budget.cap_usd > 900 * one or n_refused


def settle_somehow(store: ResponseStore, settled: Request, price: Price, batch: bool, rng: random.Random) -> Fraction:
    "One of the ways in which an attempt ends; returns the most that the provider can have charged for it, exactly."
    rates = (price.batch or price) if batch else price
    n_prompt = rng.randint(1, sum(len(said.encode()) for _, said in settled.messages) + 140)
    n_reply, n_cached = rng.randint(0, dict(settled.sampling)["max_tokens"]), rng.randint(0, n_prompt)
    n_reasoning = rng.randint(0, n_reply)
    million = Fraction(1, 10**6)
    cached = Fraction(rates.input_usd_per_million if rates.cached_input_usd_per_million is None else rates.cached_input_usd_per_million)
    reasoning = Fraction(rates.reasoning_usd_per_million or rates.output_usd_per_million)
    written = Fraction(rates.cache_write_usd_per_million or rates.input_usd_per_million)
    charge = (n_prompt - n_cached) * written + n_cached * cached
    charge += (n_reply - n_reasoning) * Fraction(rates.output_usd_per_million) + n_reasoning * reasoning
    charge = charge * million + Fraction(rates.usd_per_request)
    usage = {"cached_tokens": n_cached, "reasoning_tokens": n_reasoning, "via": "batch" if batch else "chat"}
    kind = rng.choice(["answered", "answered", "uncounted", "open", "free"])
    if kind == "answered":
        result = AttemptResult(settled, response(settled, n_prompt, n_reply, **usage))
    elif kind == "uncounted":
        result = AttemptResult(settled, response(settled, None, None, via=usage["via"]))
    elif kind == "open":
        result = AttemptResult(settled, None, "no reply within 1 s")
    else:
        result, charge = AttemptResult(settled, None, "HTTP 503", charged=False), Fraction(0)
    store.exchange([result])
    return charge


def test_a_teacher_that_counts_more_than_it_should_raises_the_allowance(store):
    asked = [request(str(number)) for number in range(10)]
    budget = Budget(1.0, PRICE)
    before = budget.worst_case_usd(asked[0])
    assert claim(budget, store, *asked[:3]) == [True] * 3
    store.exchange([AttemptResult(asked[0], response(asked[0], 1000, 60))])
    budget.refresh(store)
    grown = budget.worst_case_usd(asked[1])
    assert grown == pytest.approx(before + ((1000 - 1 - 16 - 128) * 0.5 + (60 - 50) * 1.5) / 1e6)
    assert budget.reserved_usd == pytest.approx(2 * grown)
    # What was under way is let go with what it holds now.
    store.exchange([AttemptResult(question, None, "HTTP 503", charged=False) for question in asked[1:3]])
    budget.refresh(store)
    assert budget.reserved_usd == 0


def test_changes_that_are_not_kept_any_more_are_made_up_for(store, monkeypatch):
    "A process that slept while others asked a lot reads everything anew."
    monkeypatch.setattr("zero_shot_distill.store.store._N_CHANGES", 500)
    asked = [request(str(number)) for number in range(2500)]
    budget, other = Budget(1.0, PRICE), Budget(1.0, PRICE)
    budget.watch(asked, store)
    for start in range(0, len(asked), 100):
        block = asked[start : start + 100]
        assert claim(other, store, *block) == [True] * 100
        store.exchange([AttemptResult(question, response(question, 100, 10)) for question in block])
    position, changed = store.changes_since(1)
    assert (position, changed) == (5000, None)
    assert len(store.changes_since(4900)[1]) == 100
    budget.refresh(store)
    assert budget.spent_usd == pytest.approx(2500 * (100 * 0.5 + 10 * 1.5) / 1e6)

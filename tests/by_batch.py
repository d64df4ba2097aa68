"""Ask by batch and hold the replies, for tests that look at them."""

from collections.abc import Iterable
from typing import Any

from zero_shot_distill.store.request import Request
from zero_shot_distill.store.store import ResponseStore
from zero_shot_distill.teacher.batch import settle_by_batch
from zero_shot_distill.teacher.options import Asked
from zero_shot_distill.teacher.teacher import Teacher


def ask_by_batch(teacher: Teacher, requests: Iterable[Request], store: ResponseStore, *more: Any, **named: Any) -> Asked:
    "As `settle_by_batch`, with the replies."
    requests = list(requests)
    settled = settle_by_batch(teacher, requests, store, *more, **named)
    return Asked(**vars(settled), responses=store.get_many(request.key for request in requests))

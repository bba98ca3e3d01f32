"""Every fault of a provider through a whole gateway: what the client gets, what the ledger says,
what was tried again and what was charged."""

import pytest

from schemas.events import RequestComplete, encode_event
from tests.faults.catalogue import SAID
from tests.faults.page import COMMAND, PAGE, with_faults
from tests.faults.stage import CASES, SPARE, SPARE_TEXT, Came, matrix
from tests.flow.gateway import UP_KEY

REFUSED = {"400", "413", "422"}
NOT_AGAIN = REFUSED | {"401", "403", "404", "tls", "redirect"}
MOST_TRIES = 4


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Came]:
    return matrix(tmp_path_factory.mktemp("faults"))


def test_every_call_has_one_end_and_the_ledger_says_what_the_client_saw(
    played: list[Came],
) -> None:
    assert len(played) == len(CASES)
    for came in played:
        ended_well = isinstance(came.end, RequestComplete)
        assert ended_well is (came.seen.error is None), came.case.name
        if came.seen.error is not None:
            told = getattr(came.end, "error", None)
            assert told is not None, came.case.name
            assert (told.type, told.code, told.message) == tuple(
                came.seen.error[name] for name in ("type", "code", "message")
            )
            assert came.seen.status in (200, told.status), came.case.name


def test_an_error_names_the_provider_in_its_words_and_holds_no_secret(played: list[Came]) -> None:
    for came in played:
        error = came.seen.error
        if error is None:
            continue
        assert error["provider"] == came.case.name
        words = SAID.replace(UP_KEY, "")[:30]
        assert came.case.name in error["message"] or words in error["message"], error
        assert UP_KEY not in str(error)


def test_no_event_holds_the_gateways_key(played: list[Came]) -> None:
    for came in played:
        for event in came.events:
            assert UP_KEY.encode() not in encode_event(event), came.case.name


def test_each_request_is_an_attempt_in_the_ledger_and_there_are_few(played: list[Came]) -> None:
    for came in played:
        tries = [one for one in came.outcomes if one.provider == came.case.name]
        assert 1 <= len(tries) <= MOST_TRIES, came.case.name
        assert len(came.arrived) == (0 if came.case.fault.place else len(tries)), came.case.name
        assert came.end.attempts == len(came.outcomes) == len(tries) + came.spared
        fences = [one.fence for one in came.outcomes]
        assert fences == sorted(set(fences)), came.case.name


def test_what_cannot_get_better_is_not_tried_again(played: list[Came]) -> None:
    for came in played:
        tries = [one for one in came.outcomes if one.provider == came.case.name]
        if came.case.fault.name in NOT_AGAIN or (came.seen.texts and not came.spared):
            assert len(tries) == 1, came.case.name


def test_nobody_is_asked_again_before_the_time_it_named(played: list[Came]) -> None:
    for came in played:
        gaps = [
            after - before for before, after in zip(came.arrived, came.arrived[1:], strict=False)
        ]
        if came.case.fault.wait:
            assert all(gap >= came.case.fault.wait for gap in gaps), (came.case.name, gaps)
    long = [came for came in played if "longer than" in came.case.fault.what]
    assert long and all(len(came.arrived) == 1 for came in long)


def test_a_fallback_answers_for_everything_but_what_the_client_must_mend_or_has_begun_to_read(
    played: list[Came],
) -> None:
    for came in played:
        if not came.case.spare:
            assert came.spared == 0
        elif came.case.fault.name in REFUSED:
            assert came.spared == 0 and came.seen.error is not None, came.case.name
        elif came.spared:
            assert ("".join(came.seen.texts), came.spared) == (SPARE_TEXT, 1), came.case.name
            assert came.end.provider == SPARE and came.seen.error is None
        else:
            assert came.case.stream and came.seen.texts, came.case.name


def test_a_stream_that_broke_is_never_ended_as_if_it_were_whole(played: list[Came]) -> None:
    """That an error event has no `[DONE]` behind it is checked where streams are read."""
    broken = [came for came in played if came.seen.texts and came.seen.error is not None]
    names = {came.case.fault.name.removesuffix("-midway") for came in broken}
    assert names == {"hang", "cut", "end", "malformed", "error"}
    for came in broken:
        assert came.seen.texts == ("Hel", "lo"), came.case.name
        assert came.end.usage_status == "estimated" and came.end.cost_nano, came.case.name


def test_accounts_are_charged_what_is_known_and_nothing_is_left_held(played: list[Came]) -> None:
    for came in played:
        assert came.charged == sum(one.cost_nano or 0 for one in came.outcomes), came.case.name
        assert came.held == 0, came.case.name


def test_what_a_provider_may_have_billed_is_not_called_free(played: list[Came]) -> None:
    """Free is what did not reach it, and what it answered with an error instead."""
    for came in played:
        fault = came.case.fault
        free = fault.place or fault.reply(came.case.stream).status != 200 or "error-" in fault.name
        for failed in came.failed:
            assert failed.cost_nano == (0 if free else None), came.case.name


def test_the_table_in_the_docs_is_what_happens(played: list[Came]) -> None:
    shown = PAGE.read_text()
    assert shown == with_faults(shown, played), f"run: {COMMAND}"

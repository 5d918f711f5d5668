"""Every error has its status, and no status is made up elsewhere."""

import pytest

from chestxray import errors
from chestxray.errors import ChestXrayError, NotAChestRadiographError, OverloadedError
from chestxray.service.http.problems import PROBLEMS, problem_of


def tree(root: type[ChestXrayError]) -> set[type[ChestXrayError]]:
    return {root}.union(*(tree(child) for child in root.__subclasses__()))


STATUSES = {
    errors.UnreadableError: {400, 415},
    errors.LimitError: {413},
    errors.RefusedError: {422},
    errors.RequestError: {400, 401, 408},
    errors.UnavailableError: {429, 503},
    errors.BundleError: {500},
    errors.DatasetError: {500},
    errors.ConfigError: {500},
    errors.NodeError: {500},
    errors.CannotOpenError: {500},
    errors.ClusterError: {500},
    errors.LearningError: {500},
}


def test_every_class_of_the_error_tree_is_in_the_table_and_nothing_else_is() -> None:
    assert set(PROBLEMS) == tree(ChestXrayError)


def test_codes_and_titles_tell_all_errors_apart() -> None:
    assert len({error.code for error in PROBLEMS}) == len(PROBLEMS)
    assert len({title for _, title in PROBLEMS.values()}) == len(PROBLEMS)


@pytest.mark.parametrize("branch", STATUSES, ids=lambda branch: branch.__name__)
def test_the_statuses_of_a_branch_are_the_designs(branch: type[ChestXrayError]) -> None:
    assert {PROBLEMS[error][0] for error in tree(branch)} == STATUSES[branch]


def test_the_branches_are_all_there_are() -> None:
    assert set(STATUSES) == set(ChestXrayError.__subclasses__())


def test_an_error_that_is_not_in_the_table_has_the_status_and_title_of_its_nearest_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Taken out of the table, since a class made here would stay in the tree for other tests.
    monkeypatch.delitem(PROBLEMS, errors.TruncatedFileError)
    problem = problem_of(errors.TruncatedFileError("it breaks off"))
    assert (problem.status, problem.title) == PROBLEMS[errors.UnreadableError]
    assert (problem.code, problem.detail) == ("truncated_file", "it breaks off")


def test_a_refusal_by_the_input_check_carries_its_score() -> None:
    problem = problem_of(NotAChestRadiographError("no", 0.03)).model_dump()
    assert problem == {
        "type": "urn:chestxray:problem:not_a_chest_radiograph",
        "title": "Not a chest radiograph",
        "status": 422,
        "detail": "no",
        "code": "not_a_chest_radiograph",
        "request_id": None,
        "input_check": {"accepted": False, "score": 0.03},
    }


def test_what_no_request_can_cause_tells_the_client_nothing_of_this_machine() -> None:
    problem = problem_of(errors.BundleMissingError("no bundle in /home/someone"))
    assert problem.status == 500
    assert "someone" not in problem.model_dump_json()


def test_a_full_queue_is_told_to_people_as_well() -> None:
    assert problem_of(OverloadedError("all places are taken", 1)).detail == "all places are taken"

"""The whole node as an operator runs it: answers arrive, whatever is killed; and it ends well."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from chestxray.inference import Predictor, read_bundle
from chestxray.pacs.config import read_config
from chestxray.pacs.identity import author_of, sop_instance_uid
from chestxray.pacs.status import Status, read_status
from factories.bundles import OTHER_FINDING, POPULATION, write_tiny_bundle
from factories.pacs import (
    OVERLAY,
    REPORT,
    NodeProcess,
    archive,
    association,
    chest,
    comments,
    facts,
    free_port,
    is_alive,
    node,
    program,
    send,
    write_config,
)
from factories.servers import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), validated=True)


@pytest.fixture
def said(tmp_path: Path, bundle: Path) -> dict[str, Any]:
    return facts(tmp_path, bundle=str(bundle))


@pytest.fixture
def status(tmp_path: Path) -> Iterator[Any]:
    def read() -> Status:
        return read_status(read_config(tmp_path / "pacs.toml"))

    return read


def answers_to(sources: list[Dataset], bundle: Path) -> dict[str, set[str]]:
    sha256 = read_bundle(bundle).sha256
    return {
        OVERLAY: {str(sop_instance_uid("overlay", ds, sha256)) for ds in sources},
        REPORT: {str(sop_instance_uid("report", ds, sha256)) for ds in sources},
    }


def test_radiographs_are_answered_and_others_refused(
    tmp_path: Path, said: dict[str, Any], bundle: Path, status: Any
) -> None:
    sources = [chest(number) for number in (1, 2, 3)]
    hand = chest(4, BodyPartExamined="HAND", PatientName="Left^Hand", PatientID="HAND-4711")
    with archive() as kept, node(tmp_path, _towards(said, kept.port)) as running:
        assert send(running.port, *sources, hand) == [0x0000] * 4
        wait_until(lambda: status().answered == 3 and status().waiting == 0)
        for sop_class, uids in answers_to(sources, bundle).items():
            assert kept.of(sop_class) == uids
        assert status().refused == {"wrong_body_part": 1}
        wait_until(lambda: not list((tmp_path / "node" / "files").iterdir()))
        assert running.end() == 0
        stored = (tmp_path / "node" / "queue.sqlite").read_bytes() + running.said.encode()
        for ds in [*sources, hand]:
            for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID"):
                assert str(ds[keyword].value).encode() not in stored
        for uid in kept.instances:
            assert uid.encode() not in stored
        for word in ("20260102", "20230101", "A-1", "Traceback", "Warning:"):
            assert word.encode() not in stored


def test_several_bundles_answer_in_one_report_and_each_in_an_overlay(
    tmp_path: Path, said: dict[str, Any], bundle: Path, status: Any
) -> None:
    other = write_tiny_bundle(
        tmp_path / "other",
        seed=1,
        validated=True,
        finding=OTHER_FINDING,
        population=POPULATION | {"age_years": [0, 90]},
    )
    said["node"]["bundle"] = {"pneumonia": str(bundle), "effusion": str(other)}
    said["route"][0]["bundles"] = ["pneumonia", "effusion"]
    child, adult = chest(1), chest(2, PatientAge="062Y")
    predictors = [Predictor.load(bundle), Predictor.load(other)]
    one, two, both = (author_of(of).sha256 for of in (predictors[:1], predictors[1:], predictors))
    with archive() as kept, node(tmp_path, _towards(said, kept.port)) as running:
        assert send(running.port, child, adult) == [0x0000] * 2
        wait_until(lambda: status().answered == 2)
        assert "judging with pneumonia, effusion" in running.said
        assert kept.of(OVERLAY) == {
            sop_instance_uid("overlay", ds, sha256)
            for ds, sha256 in ((child, one), (child, two), (adult, two))
        }
        reports = [kept.instances[sop_instance_uid("report", ds, both)] for ds in (child, adult)]
        assert {str(ds.SOPInstanceUID) for ds in reports} == kept.of(REPORT)
        for_child, for_adult = map(comments, reports)
        assert sum(text.startswith("NOT FOR DIAGNOSTIC USE") for text in for_child) == 2
        assert sum(text.startswith("NOT FOR DIAGNOSTIC USE") for text in for_adult) == 1
        assert "Pneumonia is not assessed" in for_adult[-1]
        assert "outside_population" in for_adult[-1]
        wait_until(lambda: not list((tmp_path / "node" / "files").iterdir()))


def test_adults_are_refused_unless_the_route_only_warns(
    tmp_path: Path, said: dict[str, Any], status: Any
) -> None:
    adult, child = chest(1, PatientAge="062Y"), chest(2)
    said["route"].insert(0, said["route"][0] | {"body_part": ["THORAX"], "population": "warn"})
    known = chest(3, PatientAge="062Y", BodyPartExamined="THORAX")
    with archive() as kept, node(tmp_path, _towards(said, kept.port)) as running:
        assert send(running.port, adult, child, known) == [0x0000] * 3
        wait_until(lambda: status().answered == 2 and status().waiting == 0)
        assert status().refused == {"outside_population": 1}
        reports = [kept.instances[uid] for uid in kept.of(REPORT)]
        (warned,) = (ds for ds in reports if ds.StudyInstanceUID == known.StudyInstanceUID)
        assert any("not of an age that the model knows" in text for text in comments(warned))


def _towards(said: dict[str, Any], port: int) -> dict[str, Any]:
    said["destination"][0]["port"] = port
    return said


def test_a_node_killed_again_and_again_answers_each_instance_once(
    tmp_path: Path, said: dict[str, Any], bundle: Path, status: Any
) -> None:
    """Its sender repeats what was not acknowledged, as PACS do; answers may be sent twice."""
    sources = [chest(number) for number in range(1, 21)]
    said["node"]["port"] = free_port()
    acknowledged: list[int] = []

    def deliver() -> None:
        for number, ds in enumerate(sources):
            while send(said["node"]["port"], ds) != [0x0000]:
                gone_on.wait(0.05)
            acknowledged.append(number)

    gone_on = threading.Event()
    with archive() as kept:
        file = write_config(tmp_path, _towards(said, kept.port))
        sending = threading.Thread(target=deliver)
        sending.start()
        for kill_after in (3, 8, 13, 18):
            running = NodeProcess(file, tmp_path / "log")
            wait_until(lambda: len(acknowledged) >= kill_after)  # noqa: B023 - called at once
            children = running.children
            running.kill()
            wait_until(lambda: not any(map(is_alive, children)))  # noqa: B023
        running = NodeProcess(file, tmp_path / "log")
        try:
            sending.join(60)
            wait_until(lambda: len(acknowledged) == 20 and status().waiting == 0)
            for sop_class, uids in answers_to(sources, bundle).items():
                assert kept.of(sop_class) == uids
            assert status().refused == {}
            assert running.end() == 0
        finally:
            gone_on.set()
            if running.process.poll() is None:
                running.kill()


def test_a_new_node_starts_right_after_the_old_one_is_killed(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with node(tmp_path, said) as first:
        assert first.port
        wait_until(lambda: len(first.children) >= 2)
        first.kill()
        with node(tmp_path, said) as second:
            assert second.port
            assert second.end() == 0


def test_children_that_die_are_replaced(tmp_path: Path, said: dict[str, Any], status: Any) -> None:
    with archive() as kept, node(tmp_path, _towards(said, kept.port)) as running:
        assert send(running.port, chest(1)) == [0x0000]
        wait_until(lambda: status().answered == 1)
        for child in running.children:
            os.kill(child, signal.SIGKILL)
        assert send(running.port, chest(2)) == [0x0000]
        wait_until(lambda: status().answered == 2)
        assert "is replaced" in running.said


def test_a_second_node_in_the_folder_ends_with_an_error(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with node(tmp_path, said) as first:
        assert first.port
        second = NodeProcess(tmp_path / "pacs.toml", tmp_path / "second.log")
        assert second.process.wait(60) == 1
        assert "another node works" in second.said
        assert first.process.poll() is None


def test_an_unknown_operating_point_is_an_error_at_start(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    said["route"][0]["operating_point"] = "sharp"
    with node(tmp_path, said) as running:
        assert running.process.wait(60) == 2
        assert "route.0.operating_point" in running.said


def test_an_operating_point_that_one_of_a_routes_bundles_lacks_is_an_error_at_start(
    tmp_path: Path, said: dict[str, Any], bundle: Path
) -> None:
    points = {"balanced": {"threshold": 0.5, "rule": "the only one"}}
    other = write_tiny_bundle(tmp_path / "other", seed=1, operating_points=points)
    said["node"]["bundle"] = {"one": str(bundle), "other": str(other)}
    said["route"][0] |= {"operating_point": "screening"}
    said["route"].append(said["route"][0] | {"bundles": ["one", "other"]})
    with node(tmp_path, said) as running:
        assert running.process.wait(60) == 2
        assert "route.1.operating_point" in running.said


def test_an_unknown_bundle_is_an_error_at_start(tmp_path: Path, said: dict[str, Any]) -> None:
    said["route"][0]["bundles"] = ["tiny", "sharp"]
    with node(tmp_path, said) as running:
        assert running.process.wait(60) == 2
        assert "route.0.bundles" in running.said


def test_who_may_send_is_said_at_the_start_if_nobody_may(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with node(tmp_path, said | {"peer": []}) as running:
        assert running.port
        assert "nobody may send" in running.said


def test_sigterm_lets_an_association_end_and_exits_with_0(
    tmp_path: Path, said: dict[str, Any], status: Any
) -> None:
    with node(tmp_path, said) as running:
        with association(running.port) as link:
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "the node ends" in running.said)
            assert link.send_c_store(chest(1)).Status == 0x0000
        assert running.process.wait(30) == 0
    assert status().received == 1
    assert status().waiting == 1


def test_a_judge_that_never_ends_does_not_outlive_the_grace(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with node(tmp_path, said, "import chestxray.pacs.node as n; n.FINISH_WORK_S = 0.5") as running:
        assert send(running.port, chest(side_px=300)) == [0x0000]
        for child in running.children:
            os.kill(child, signal.SIGSTOP)  # it hears nothing any more
        children = running.children
        assert running.end() == 0
        assert "takes too long and is killed" in running.said
        wait_until(lambda: sum(map(is_alive, children)) <= 1)  # but Python's resource tracker
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)


def test_a_second_signal_ends_it_at_once_and_without_a_traceback(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    patient = "import chestxray.pacs.node as n; n.FINISH_ASSOCIATIONS_S = n.END_TIMEOUT_S = 1000"
    with node(tmp_path, said, patient) as running, association(running.port):
        running.process.send_signal(signal.SIGINT)
        wait_until(lambda: "the node ends" in running.said)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) == 0
        assert "Traceback" not in running.said


def test_ctrl_c_ends_it_too(tmp_path: Path, said: dict[str, Any]) -> None:
    with node(tmp_path, said) as running:
        assert running.port
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0


def test_dcmtk_sends_and_dcmtk_gets_the_answer(
    tmp_path: Path, said: dict[str, Any], status: Any
) -> None:
    storescp, storescu = program("storescp"), program("storescu")
    port = free_port()
    (tmp_path / "archive").mkdir()
    receiving = subprocess.Popen(
        [storescp, "-aet", "ARCHIVE", "-od", str(tmp_path / "archive"), "-uf", str(port)]
    )
    try:
        with node(tmp_path, _towards(said, port)) as running:
            file = tmp_path / "chest.dcm"
            chest(1).save_as(file, enforce_file_format=True)
            titles = ["-aet", "SENDER", "-aec", "NODE", "127.0.0.1", str(running.port)]
            subprocess.run([storescu, *titles, str(file)], check=True, timeout=30)
            wait_until(lambda: status().answered == 1)
            assert len(list((tmp_path / "archive").iterdir())) == 2
    finally:
        receiving.kill()
        receiving.wait()


def test_a_judge_that_hangs_is_killed_and_what_it_hangs_on_is_refused(
    tmp_path: Path, said: dict[str, Any], status: Any
) -> None:
    """What takes a moment counts as hanging here."""
    hasty = "import chestxray.pacs.node as n; n.JUDGE_S = n.WATCH_S = 0.01"
    with archive() as kept, node(tmp_path, _towards(said, kept.port), hasty) as running:
        assert send(running.port, chest(side_px=4000)) == [0x0000]
        wait_until(lambda: status().refused == {"crashed": 1}, timeout_s=60)
        assert running.said.count("hangs and is killed") == 3
        assert running.end() == 0

"""Frames are decoded in processes that may be killed, without harm to anything else."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from chestxray.errors import DamagedFileError, TooCostlyError
from chestxray.imaging.dicom import decoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are limited on Linux")

ENCODERS = {
    "jpeg8": imagecodecs.ljpeg_encode,
    "jpegls": imagecodecs.jpegls_encode,
    "jpeg2k": lambda words: imagecodecs.jpeg2k_encode(words, level=0, codecformat="j2k"),
}


def picture(rows: int, columns: int, dtype: str = "u2", seed: int = 0) -> np.ndarray:
    """Noise over a slope, which no codec makes small."""
    noise = np.random.default_rng(seed).integers(0, 100, (rows, columns))
    return (noise + np.arange(columns)).clip(0, np.iinfo(dtype).max).astype(dtype)


def decoded(codec: str, words: np.ndarray) -> np.ndarray:
    return decode(codec, ENCODERS[codec](words), *words.shape, words.dtype.str[1:])


def decode(codec: str, frame: bytes, rows: int, columns: int, dtype: str = "u2") -> np.ndarray:
    return decoder.decode(codec, memoryview(frame), rows, columns, dtype)


@pytest.fixture(autouse=True)
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[decoder._Decoders]:
    """Each test has processes of its own, which end with it."""
    own = decoder._Decoders()
    monkeypatch.setattr(decoder, "_decoders", own)
    yield own
    for each in own._all:
        each.end()


def pids(decoders: decoder._Decoders) -> set[int]:
    return {each._process.pid for each in decoders._all}


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("shape", [(40, 33), (7, 5), (1, 3000)])
def test_a_frame_is_decoded_as_the_library_decodes_it(codec, dtype, shape):
    words = picture(*shape, dtype)
    found = decoded(codec, words)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, words)


def test_signed_words_are_those_that_were_coded():
    words = picture(30, 20).astype("i2") - 50
    np.testing.assert_array_equal(decoded("jpeg2k", words), words)


def test_words_stay_when_other_frames_are_decoded_after_them():
    first = decoded("jpegls", picture(64, 64))
    kept = first.copy()
    for seed in range(1, 4):
        decoded("jpegls", picture(64, 64, seed=seed))
    np.testing.assert_array_equal(first, kept)


def test_large_and_small_frames_may_follow_one_another(decoders):
    for rows in (10, 3000, 20, 5000, 30):
        words = picture(rows, 4000)
        np.testing.assert_array_equal(decoded("jpeg8", words), words)
        (kept,) = decoders._all
        assert len(kept._room.mapped) <= decoder.KEPT_BYTES


def test_one_thread_has_one_process_and_keeps_it(decoders):
    decoded("jpeg8", picture(20, 20))
    before = pids(decoders)
    for seed in range(3):
        decoded("jpeg8", picture(20, 20, seed=seed))
    assert pids(decoders) == before


def test_threads_decode_at_the_same_time_and_get_their_own_frames(decoders):
    pictures = [picture(200, 100 + seed, seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda words: decoded("jpeg2k", words), pictures))
    for words, expected in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(words, expected)
    assert 1 <= len(decoders._all) <= 3


def test_a_damaged_frame_is_an_error_and_its_process_goes_on(decoders):
    frame = ENCODERS["jpeg8"](picture(64, 64))
    with pytest.raises(DamagedFileError):
        decode("jpeg8", frame[:20], 64, 64)
    before = pids(decoders)
    decoded("jpeg8", picture(64, 64))
    assert pids(decoders) == before


@pytest.mark.parametrize(
    ("shape", "dtype"), [((64, 63), "u2"), ((32, 128), "u2"), ((64, 64), "u1")]
)
@pytest.mark.parametrize("codec", ENCODERS)
def test_a_frame_of_another_picture_is_damaged(codec, shape, dtype):
    frame = ENCODERS[codec](picture(64, 64))
    with pytest.raises(DamagedFileError):
        decode(codec, frame, *shape, dtype)


def test_a_frame_that_wants_the_memory_of_a_larger_picture_is_not_decoded(decoders):
    frame = ENCODERS["jpeg2k"](np.zeros((6000, 6000), np.uint16))
    with pytest.raises((DamagedFileError, TooCostlyError)):
        decode("jpeg2k", frame, 64, 64)
    (kept,) = decoders._all
    status = Path(f"/proc/{kept._process.pid}/status").read_text(encoding="ascii")
    (peak,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(peak.split()[1]) < 120_000  # kB; the picture would have 144 MB


def test_a_frame_that_takes_too_long_costs_its_process_and_no_other_frame(decoders, monkeypatch):
    decoded("jpeg2k", picture(8, 8))
    before = pids(decoders)
    with monkeypatch.context() as patched:
        patched.setattr(decoder, "CPU_S", 0.01)
        patched.setattr(decoder, "CPU_S_PER_PIXEL", 0)
        patched.setattr(decoder, "CPU_S_PER_BYTE", {"jpeg2k": 0})
        with pytest.raises(TooCostlyError):
            decoded("jpeg2k", picture(2000, 2000))
    decoded("jpeg8", picture(20, 20))
    assert not before & pids(decoders)
    assert len(decoders._all) == 1


def test_a_process_that_says_nothing_is_not_waited_for_for_ever(decoders, monkeypatch):
    decoded("jpeg8", picture(20, 20))
    (stopped,) = decoders._all
    os.kill(stopped._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(decoder, "PATIENCE_S", 0.01)
    with pytest.raises(TooCostlyError):
        decoded("jpeg8", picture(20, 20))
    assert not stopped.lives


def test_a_process_that_died_in_idleness_costs_no_frame(decoders):
    decoded("jpeg8", picture(20, 20))
    (dead,) = decoders._all
    dead._process.kill()
    dead._process.wait()
    assert decoded("jpeg8", picture(20, 20)).shape == (20, 20)
    assert decoders._all != {dead}


def test_a_library_that_crashes_is_given_a_damaged_frame(decoders):
    decoded("jpeg8", picture(20, 20))
    (crashing,) = decoders._all
    crashing._process.send_signal(signal.SIGSEGV)
    crashing._process.wait()
    with pytest.raises(DamagedFileError):
        crashing.decode("jpeg8", memoryview(b""), 20, 20, "u2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_process_does_what_it_is_at_when_all_of_a_service_are_told_to_end(decoders, number):
    decoded("jpeg8", picture(20, 20))
    before = pids(decoders)
    for pid in before:
        os.kill(pid, number)
    decoded("jpeg8", picture(20, 20))
    assert pids(decoders) == before


def test_no_file_is_left_open(decoders):
    decoded("jpeg8", picture(20, 20))
    before = n_open_files()
    for seed in range(3):
        decoded("jpeg8", picture(20, 3000 * seed + 20, seed=seed))
        (each,) = decoders._all
        each.end()
    decoded("jpeg8", picture(20, 20))
    assert n_open_files() == before


def n_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_forked_process_has_decoders_of_its_own(decoders):
    decoded("jpeg8", picture(20, 20))
    ours, theirs = multiprocessing.Pipe()
    forked = multiprocessing.get_context("fork").Process(target=in_a_fork, args=(decoders, theirs))
    forked.start()
    theirs.close()
    held, found = ours.recv()
    forked.join(30)
    assert forked.exitcode == 0
    assert held == set()
    assert not found & pids(decoders)
    before = pids(decoders)
    decoded("jpeg8", picture(20, 20))
    assert pids(decoders) == before


def in_a_fork(decoders, answers) -> None:
    decoders.forget()  # what is registered for those of the module
    held = pids(decoders)
    decoded("jpeg8", picture(20, 20))
    answers.send((held, pids(decoders)))


HOW_IT_ENDS = {
    "returns": "",
    "leaves at once": "os._exit(0)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "is told to end": "os.kill(os.getpid(), signal.SIGTERM)",
    "is in the middle of a frame": "in_the_middle()",
}

PROGRAM = """
import os, signal, threading
import imagecodecs, numpy as np
from chestxray.imaging.dicom import decoder
frame = imagecodecs.ljpeg_encode(np.zeros((64, 64), np.uint16))
decoder.decode("jpeg8", memoryview(frame), 64, 64, "u2")
ready = threading.Event()
def long():
    words = np.random.default_rng(0).integers(0, 4096, (2000, 2000)).astype(np.uint16)
    frame = memoryview(imagecodecs.jpeg2k_encode(words, level=0))
    ready.set()
    decoder.decode("jpeg2k", frame, 2000, 2000, "u2")
def in_the_middle():
    threading.Thread(target=long, daemon=True).start()
    ready.wait()
print(*(each._process.pid for each in decoder._decoders._all), flush=True)
"""


@pytest.mark.parametrize("how", HOW_IT_ENDS)
def test_a_process_ends_with_who_started_it_and_leaves_no_word(how):
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + HOW_IT_ENDS[how]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, complained = program.communicate(timeout=60)
    assert complained == ""
    # Its end has to be waited for, as it is nobody's child any more.
    gone = threading.Event()
    for _ in range(1000):
        if all(not is_at_work(int(pid)) for pid in said.split()):
            return
        gone.wait(0.01)
    pytest.fail("it has outlived its parent")


def is_at_work(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"

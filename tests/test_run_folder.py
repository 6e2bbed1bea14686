import dataclasses
import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from boltzgen_diffclf.errors import InputError, RunFailedError
from boltzgen_diffclf.files import atomic_path
from workflows import source_code, stopwatch
from workflows.progress import Progress, terminating_politely
from workflows.run_folder import RunFolder, StageResult
from workflows.run_start import open_run_folder
from workflows.settings_file import settings_as_toml
from workflows.solvation import SolvationConfig

CONFIG = SolvationConfig()


def some_stage():
    arrays = {"x": np.linspace(0, 1, 7), "counts": np.arange(3)}
    return StageResult(arrays, {"r_hat": 0.1 + 0.2, "names": ["phi", "psi"]})


def the_folder(path):
    return RunFolder(path, Progress(path / "status.json"))


def never():
    raise AssertionError("computed again")


def test_a_finished_stage_is_read_back_exactly_and_not_computed_again(tmp_path):
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert not folder.stage_done("reference")
        first = folder.stage("reference", some_stage)
        assert folder.stage_done("reference")
    with open_run_folder(tmp_path, CONFIG) as folder:
        again = folder.stage("reference", never)
    assert again.facts == {"r_hat": 0.1 + 0.2, "names": ["phi", "psi"]}
    assert again.seconds == first.seconds > 0
    np.testing.assert_array_equal(again.arrays["x"], np.linspace(0, 1, 7))
    assert again.arrays["counts"].dtype == first.arrays["counts"].dtype


def test_seconds_of_stages_found_are_counted_once(tmp_path):
    with open_run_folder(tmp_path, CONFIG) as folder:
        first = folder.stage("reference", some_stage)
        folder.stage("reference", never)
        assert folder.seconds_found == 0.0
    with open_run_folder(tmp_path, CONFIG) as folder:
        folder.stage("reference", never)
        folder.stage("reference", never)
        folder.stage("training", some_stage)
        assert folder.seconds_found == first.seconds


def test_a_stage_that_was_killed_tells_the_time_of_both_starts(tmp_path):
    def killed(folder):
        with folder.progress.stage("reference", 2) as advance:
            advance(1)
            raise KeyboardInterrupt

    def begun():
        with open_run_folder(tmp_path, CONFIG) as folder:
            folder.progress.plan({"reference": 1.0})
            folder.stage("reference", lambda: killed(folder))

    with pytest.raises(KeyboardInterrupt):
        begun()
    file = tmp_path / "stages" / "reference.seconds"
    assert float(file.read_text()) > 0
    file.write_text("1000.0")
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert 1000 < folder.stage("reference", some_stage).seconds < 1010
        assert folder.seconds_found == 1000
    assert not file.exists()


def test_a_stage_of_which_more_is_wanted_goes_on_and_tells_the_time_of_both(tmp_path):
    with open_run_folder(tmp_path, CONFIG) as folder:
        folder.save_stage("chains", StageResult(facts={"frames": 3}, seconds=1000.0))
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert folder.stage("chains", never, is_enough=lambda facts: facts["frames"] == 3).facts == {"frames": 3}
    with open_run_folder(tmp_path, CONFIG) as folder:
        more = folder.stage(
            "chains", lambda: StageResult(facts={"frames": 5}), is_enough=lambda facts: facts["frames"] == 5
        )
        assert more.facts == {"frames": 5}
        assert 1000 < more.seconds < 1010
        assert folder.seconds_found == 1000
        assert folder.load_stage("chains").facts == {"frames": 5}


def test_further_files_of_a_stage_are_vouched_for(tmp_path):
    folder = the_folder(tmp_path)
    frames = tmp_path / "frames.h5"
    frames.write_bytes(b"frames")
    folder.save_stage("reference", StageResult(files=[frames]))
    assert folder.load_stage("reference").files == [frames]
    frames.write_bytes(b"fram")
    with pytest.raises(InputError, match=r"frames\.h5 is missing, truncated or altered"):
        folder.load_stage("reference")


@pytest.mark.parametrize("name", ["reference.npz", "reference.json"])
@pytest.mark.parametrize("keep", [0, 60])
def test_a_truncated_stage_file_gives_one_line_that_names_it(name, keep, tmp_path):
    folder = the_folder(tmp_path)
    folder.save_stage("reference", some_stage())
    file = tmp_path / "stages" / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        folder.stage("reference", never)
    message = str(caught.value)
    assert str(file) in message
    assert "delete" in message
    assert "--out" in message
    assert "\n" not in message


def test_an_altered_fact_is_noticed(tmp_path):
    folder = the_folder(tmp_path)
    folder.save_stage("reference", some_stage())
    record = tmp_path / "stages" / "reference.json"
    record.write_text(record.read_text().replace("phi", "psi"))
    with pytest.raises(InputError, match="altered"):
        folder.load_stage("reference")


def test_the_record_of_another_stage_is_refused(tmp_path):
    folder = the_folder(tmp_path)
    folder.save_stage("reference", some_stage())
    (tmp_path / "stages" / "training.json").write_text((tmp_path / "stages" / "reference.json").read_text())
    with pytest.raises(InputError, match=r"training\.json is a copy of the record of stage reference: delete it"):
        folder.load_stage("training")
    assert folder.load_stage("reference").facts["names"] == ["phi", "psi"]


def test_a_record_from_before_they_named_their_stage_is_read(tmp_path):
    content = {"facts": {"r_hat": 0.5}, "seconds": 1.0, "files": {}}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "reference.json").write_text(json.dumps({"content": content, "sha256": digest}))
    assert the_folder(tmp_path).load_stage("reference").facts == {"r_hat": 0.5}


def test_a_stage_killed_while_it_runs_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_run_folder(tmp_path, CONFIG) as folder:
        folder.stage("reference", lambda: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert not the_folder(tmp_path).stage_done("reference")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"temperature_kelvin": 310.0}, "temperature_kelvin = 300.0, and now temperature_kelvin = 310.0"),
        ({"threads": 2}, "threads = (not set), and now threads = 2"),
        ({"estimators": ("bar",)}, 'estimators = ["all"], and now estimators = ["bar"]'),
    ],
)
def test_a_changed_setting_is_refused_by_name(change, expected, tmp_path):
    with open_run_folder(tmp_path, CONFIG):
        pass
    changed = SolvationConfig(**change)
    with pytest.raises(InputError) as caught, open_run_folder(tmp_path, changed):
        pass
    assert expected in str(caught.value)
    assert "choose another --out" in str(caught.value)


def fails(path, config, error, work=lambda folder: None):
    with open_run_folder(path, config) as folder:
        work(folder)
        raise error


def test_a_start_that_left_nothing_leaves_no_settings(tmp_path):
    changed = SolvationConfig(threads=2)
    with pytest.raises(InputError, match="too few"):
        fails(tmp_path, CONFIG, InputError("too few"), lambda folder: folder.remember("threads", lambda: 1))
    with pytest.raises(KeyboardInterrupt):
        fails(tmp_path, changed, KeyboardInterrupt, lambda folder: folder.remember("threads", lambda: 2))
    with pytest.raises(InputError, match="started with threads = 2"):
        fails(tmp_path, CONFIG, RunFailedError("never"))
    with pytest.raises(RunFailedError):
        fails(tmp_path, changed, RunFailedError("later"), lambda folder: folder.stage("reference", some_stage))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.toml").write_text("# notes\n" + settings_as_toml(CONFIG))
    with pytest.raises(InputError, match="too few"):
        fails(mine, CONFIG, InputError("too few"))
    assert (mine / "config.toml").read_text().startswith("# notes")
    with open_run_folder(tmp_path, changed) as folder:
        assert folder.remember("threads", never) == 2
        assert folder.stage_done("reference")


def test_other_code_than_the_run_was_begun_with_is_told(tmp_path, monkeypatch, caplog):
    for digest, told in (("one", 0), ("one", 0), ("another", 1)):
        monkeypatch.setattr("workflows.run_start.source_digest", lambda digest=digest: digest)
        with open_run_folder(tmp_path, CONFIG):
            assert sum("begun with other code" in record.message for record in caplog.records) == told


def test_the_digest_is_of_every_module(tmp_path, monkeypatch):
    module = tmp_path / "systems" / "new.py"
    monkeypatch.setattr(source_code, "__file__", str(tmp_path / "workflows" / "source_code.py"))
    found = []
    for text in (None, "a = 1", "a = 2"):
        if text:
            module.parent.mkdir(exist_ok=True)
            module.write_text(text)
        found.append(source_code.source_digest.__wrapped__())
    assert len(set(found)) == 3


def test_the_folder_itself_may_be_renamed(tmp_path):
    with open_run_folder(tmp_path / "a", dataclasses.replace(CONFIG, out=tmp_path / "a")):
        pass
    (tmp_path / "a").rename(tmp_path / "b")
    with open_run_folder(tmp_path / "b", dataclasses.replace(CONFIG, out=tmp_path / "b")) as folder:
        assert folder.path.name == "b"


def test_a_shared_choice_is_made_once(tmp_path):
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert folder.remember("threads", lambda: 2) == 2
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert folder.remember("threads", never) == 2


@pytest.mark.parametrize("damage", ['"abc"', "null", "0", "-3", "2.5", "true", "[2]", "1" + "0" * 30])
def test_threads_that_are_no_number_of_threads_name_the_damaged_file(damage, tmp_path):
    (tmp_path / "run.json").write_text(f'{{"threads": {damage}}}')
    with pytest.raises(InputError, match="is altered, threads = ") as caught:
        the_folder(tmp_path).remember_threads(never)
    assert str(tmp_path / "run.json") in str(caught.value)
    assert "delete it, or choose another --out" in str(caught.value)


def test_two_processes_do_not_share_a_folder_and_a_dead_one_leaves_no_lock(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from workflows.run_start import open_run_folder\nfrom workflows.solvation import SolvationConfig\n"
        "with open_run_folder(Path(sys.argv[1]), SolvationConfig()):\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match=f"in use by process {other.pid} "), open_run_folder(tmp_path, CONFIG):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        other.stdout.close()
    with open_run_folder(tmp_path, CONFIG) as folder:
        assert f"process {os.getpid()} " in (folder.path / ".lock").read_text()


def test_a_full_disk_fails_the_run_and_destroys_nothing(tmp_path, monkeypatch):
    folder = the_folder(tmp_path)
    folder.save_stage("reference", some_stage())
    before = sorted(path.name for path in (tmp_path / "stages").iterdir())

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFailedError, match="No space left on device") as caught:
        folder.save_stage("training", some_stage())
    assert caught.value.exit_code == 4
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == before
    assert folder.load_stage("reference").facts["names"] == ["phi", "psi"]


def test_a_folder_in_the_place_of_a_file_is_to_be_moved_away(tmp_path):
    (tmp_path / "results.csv").mkdir()
    with (
        pytest.raises(RunFailedError, match=r"results\.csv: it is a folder; move it away, then repeat"),
        atomic_path(tmp_path / "results.csv") as path,
    ):
        path.write_text("one line")
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_a_full_disk_in_the_log_ends_the_run(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_run_folder(tmp_path, CONFIG):
        monkeypatch.setattr(logging.FileHandler, "format", full, raising=False)
        with pytest.raises(OSError, match="No space"):
            logging.getLogger("workflows.test").info("one line")
        monkeypatch.undo()


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another --out"), open_run_folder(tmp_path / "file" / "x", CONFIG):
        pass


def test_the_log_is_appended_across_starts(tmp_path):
    for word in ("first", "second"):
        with open_run_folder(tmp_path, CONFIG):
            logging.getLogger("systems.test").info(word)
    logging.getLogger("systems.test").info("third")
    text = (tmp_path / "run.log").read_text()
    assert "first" in text
    assert "second" in text
    assert "third" not in text


def test_a_stage_name_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match="one plain word"):
        the_folder(tmp_path).stage_done("../elsewhere")


def test_a_stopwatch_writes_seldom_and_goes_on_where_it_was(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: now[0])
    file = tmp_path / "x.seconds"
    watch = stopwatch.Stopwatch(file)
    written = []
    for _ in range(40):
        now[0] += 1.0
        watch.keep()
        written.append(file.read_text())
    assert len(set(written)) == 40 / stopwatch.INTERVAL
    now[0] += 500.0
    again = stopwatch.Stopwatch(file)
    now[0] += 2.0
    assert again.done() == float(written[-1]) + 2.0
    assert not file.exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_python_drops_stops_the_run_at_its_next_step(tmp_path, number):
    class Ends:
        def __del__(self):
            os.kill(os.getpid(), number)
            for _ in range(1000):  # the handler runs here, where an exception is dropped
                pass

    steps = []

    def work():
        with terminating_politely(), Progress(tmp_path / "status.json") as progress:
            progress.plan({"work": 1.0})
            with progress.stage("work", 10) as advance:
                last = Ends()
                del last
                steps.append("gone on")
                advance(1)
                steps.append("told how far it is")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["gone on"]
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "interrupted"


def test_the_status_names_a_stage_from_its_beginning(tmp_path):
    with Progress(tmp_path / "status.json") as progress:
        progress.plan({"first": 1.0, "second": 1.0})
        with progress.stage("first", 1):
            pass
        with progress.stage("second", 1):
            assert json.loads((tmp_path / "status.json").read_text())["stage"] == "second"

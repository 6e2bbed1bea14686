import errno
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from boltzgen_diffclf.errors import NotTrustworthyError, RunFailedError
from workflows.command_line import run_command
from workflows.progress import Progress
from workflows.solvation import PRESETS, SolvationConfig

FIRST_WORDS = "the run is kept in"


def command(words, run=lambda config: None):
    return run_command(SolvationConfig, run, program="test", presets=PRESETS, argv=words)


def settings_of(words):
    seen = []
    assert command(words, seen.append) == 0
    return seen[0]


def refused(words, capsys, run=lambda config: None, code=2):
    """Return the line of a command that must fail with ``code``; before it a run has said that it begins."""
    assert command(words, run) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    *before, line = captured.err.splitlines()
    assert line.startswith("error: ")
    assert all(FIRST_WORDS in told for told in before)
    assert len(before) <= 1
    return line


HELP = """
import sys
from workflows.solvation import main
sys.argv = ["solvation", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
heavy = {"numpy", "torch", "openmm", "mdtraj", "pymbar", "matplotlib", "pandas", "scipy", "rich"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


def test_help_names_units_and_presets_without_heavy_imports():
    shown = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True).stdout
    assert "HEAVY []" in shown
    assert "--temperature-kelvin" in shown
    assert "[K]" in shown
    assert "[fs]" in shown
    assert f"standard: {PRESETS['standard']['walkers']}" in " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--help", "--print-config"])
def test_a_reader_that_leaves_early_is_no_error(option):
    command = f"{sys.executable} -m workflows.solvation {option} | head -n 1"
    finished = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout


@pytest.mark.parametrize("module", ["solvation", "reference", "benchmark"])
def test_an_empty_folder_name_is_not_the_current_folder(module):
    command = [sys.executable, "-m", f"workflows.{module}", "--out", "", "--print-config"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 2
    assert "option '--out' is empty" in finished.stderr


def test_every_field_describes_itself_and_says_its_unit():
    for name, field in SolvationConfig.__pydantic_fields__.items():
        assert field.description, name
        if name.endswith("_kelvin"):
            assert "[K]" in field.description
        if name.endswith("_fs"):
            assert "[fs]" in field.description


def test_presets_name_settings_that_exist_and_the_defaults_are_quick():
    for values in PRESETS.values():
        assert set(values) == set(PRESETS["quick"])
        assert set(values) <= set(SolvationConfig.__pydantic_fields__)
    assert SolvationConfig() == SolvationConfig(preset="quick", **PRESETS["quick"])


def test_sources_override_each_other_in_order(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('preset = "standard"\nwalkers = 9\nbatch_groups = 9\n')
    settings = settings_of(["--config", str(file), "--batch-groups", "11", "--hidden", "8", "8"])
    assert settings.preset == "standard"
    assert settings.training_steps == PRESETS["standard"]["training_steps"]
    assert (settings.walkers, settings.batch_groups, settings.hidden) == (9, 11, (8, 8))
    quick = settings_of(["--config", str(file), "--preset", "quick"])
    assert (quick.walkers, quick.training_steps) == (9, PRESETS["quick"]["training_steps"])


def test_print_config_is_toml_that_gives_the_same_settings(tmp_path, capsys):
    words = ["--preset", "paper", "--temperature-kelvin", "310.5", "--estimators", "bar", "ais", "--out", 'a "b"']
    asked = settings_of(words)
    assert command([*words, "--print-config"], pytest.fail) == 0
    file = tmp_path / "printed.toml"
    file.write_text(capsys.readouterr().out)
    assert tomllib.loads(file.read_text())["temperature_kelvin"] == 310.5
    assert settings_of(["--config", str(file)]) == asked


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sytem", "aldp"], "unknown option '--sytem'; did you mean '--system'?"),
        (["--temperature", "300"], "did you mean '--temperature-kelvin'?"),
        (
            ["--system", "aldq"],
            "unknown system (valid: aldp, aldp-ildn, chignolin, chignolin-capped); did you mean 'aldp'?",
        ),
        (["--preset", "quik"], "did you mean 'quick'?"),
        (["--leg", "poler"], "did you mean 'polar'?"),
        (["--estimators", "bar", "aiss"], "unknown estimator 'aiss' (valid: all, mbar, population, bar, "),
        (["--estimators", "bar", "aiss"], "; did you mean 'ais'?"),
        (["--temperature-kelvin", "5"], "--temperature-kelvin 5: input should be greater than or equal to 100"),
        (["--temperature-kelvin", "nan"], "--temperature-kelvin nan"),
        (["--temperature-kelvin", "warm"], "--temperature-kelvin warm: input should be a valid number"),
        (["--trajectory", "vacum=x.h5"], "unknown state 'vacum'"),
        (["--trajectory", "x.h5"], "not written STATE=FILE"),
        (["--highest-temperature-kelvin", "250"], "--exchange-temperatures 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--path-levels", "6"], "6 is not 4 n + 1: take 5"),
        (["--hidden", "8", "4"], "all layers have one width"),
        (["--training-seeds", "7", "--walkers", "6"], "raise --walkers to 14"),
        (["--levels-per-group", "9", "--path-levels", "5"], "--levels-per-group 9 is more than --path-levels 5"),
        (["--trajectory", "vacuum=a.h5", "vacuum=b.h5"], "two trajectories of 'vacuum', a.h5 and b.h5"),
        (["--walkers", "5"], "an error bar needs two: raise --walkers to 6"),
        (["--threads", "100000"], "--threads 100000: this machine has"),
        (
            ["--engine", "openmm", "--exchange-temperatures", "3"],
            "--exchange-temperatures 3 goes with --engine compiled",
        ),
        (["--estimators", "cartesian"], "the Cartesian network has no steps: add --cartesian-steps 600"),
        (["--estimators", "mbar", "cartesian", "--leg", "total", "--preset", "standard"], "add --leg polar"),
        (["--estimators", "dsm_only", "--leg", "polar"], "(total): add --ablation-legs polar"),
        (["--estimators", "diffclf_only", "mbar", "--leg", "nonpolar"], "add --ablation-legs nonpolar"),
        (["--estimators", "fep", "--leg", "total"], "name bar in its place"),
        (["--estimators", "bar", "--leg", "nonpolar"], "name fep in its place"),
        (["--out"], "option '--out' lacks its value"),
        (["--estimators", "--seed", "1"], "option '--estimators' lacks its value"),
        (["stray"], "unexpected word 'stray'"),
        (["--config", "nowhere.toml"], "could not read the settings file nowhere.toml"),
    ],
)
def test_bad_input_is_told_in_one_line(words, expected, capsys):
    assert expected in refused(words, capsys, run=pytest.fail)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temprature_kelvin = 300", "unknown setting 'temprature_kelvin'; did you mean 'temperature_kelvin'?"),
        ("temperature_kelvin = 5.0", "temperature_kelvin = 5.0: input should be greater"),
        ("walkers = ", "is not TOML"),
    ],
)
def test_bad_settings_files_name_the_file_and_the_key(text, expected, tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    line = refused(["--config", str(file)], capsys)
    assert str(file) in line
    assert expected in line


def raising(error):
    def run(config):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (NotTrustworthyError("no overlap"), 3, "no overlap"),
        (RunFailedError("energies became NaN"), 4, "NaN"),
        (OSError(errno.ENOSPC, "No space left on device", "x.npz"), 4, "the disk is full (x.npz)"),
        (OSError(errno.EIO, "Input/output error"), 4, "Input/output error"),
        (KeyboardInterrupt(), 130, "repeat the command to resume"),
        (ZeroDivisionError("division\nby zero"), 4, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_errors_of_a_run_have_one_line_and_an_exit_code(error, code, expected, capsys):
    assert expected in refused([], capsys, raising(error), code)


def test_debug_shows_the_traceback(capsys):
    assert command(["--debug"], raising(RunFailedError("boom"))) == 4
    assert "Traceback" in capsys.readouterr().err


def test_trajectory_that_is_not_there_is_refused_before_anything_is_made(tmp_path, capsys):
    from workflows.solvation import run

    out = tmp_path / "out"
    line = refused(["--out", str(out), "--trajectory", f"vacuum={tmp_path}/none.h5"], capsys, run)
    assert "none.h5" in line
    assert not out.exists()


def test_progress_tells_a_job_queue_where_it_stands(tmp_path, caplog):
    caplog.set_level("INFO", logger="workflows")
    status = tmp_path / "status.json"
    with Progress(status) as progress:
        progress.plan({"reference": 3.0, "training": 1.0})
        progress.skip("reference")
        with progress.stage("training", total=10) as advance:
            advance(5)
            assert progress.fraction == pytest.approx(0.875)
            assert progress.seconds_left is not None
            assert json.loads(status.read_text())["state"] == "running"
            assert json.loads(status.read_text())["stage"] == "training"
    done = json.loads(status.read_text())
    assert (done["state"], done["fraction"], done["exit_code"]) == ("done", 1.0, 0)
    assert "training: done" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_time_left_forgets_what_was_found_and_follows_steps_that_become_slower(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("workflows.progress.time.monotonic", lambda: now)
    with Progress(tmp_path / "status.json") as progress:
        progress.plan({"training": 4.0, "samples": 1.0})
        with progress.stage("training", total=1000) as advance:
            advance(500)
            for _ in range(100):
                now += 1.0
                advance(1)
            # 400 steps at 1 s; 0.4 of the plan took 100 s, so that 1.0 more take 250 s.
            assert progress.seconds_left == pytest.approx(400 + 250)
            for _ in range(100):
                now += 3.0
                advance(1)
            assert progress.seconds_left == pytest.approx(300 * 3 + 400 / 0.8)


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (KeyboardInterrupt, "interrupted", 130),
        (NotTrustworthyError, "not trustworthy", 3),
        (ValueError, "failed", 4),
    ],
)
def test_progress_ends_with_the_state_of_the_run(error, state, code, tmp_path):
    with pytest.raises(error), Progress(tmp_path / "status.json"):
        raise error("why")
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == (state, code)


def test_progress_refuses_a_stage_outside_its_plan(tmp_path):
    with (
        Progress(tmp_path / "status.json") as progress,
        pytest.raises(ValueError, match="not in the plan"),
        progress.stage("other", 1),
    ):
        pass


def in_a_process(what, *words):
    """Return a finished process whose command does nothing but ``what``, one statement."""
    script = (
        "import os, signal, sys\nfrom workflows.command_line import run_command\n"
        f"from workflows.solvation import SolvationConfig\ndef run(config):\n    {what}\n"
        f"raise SystemExit(run_command(SolvationConfig, run, program='x', argv={list(words)}))\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_terminate_is_told_like_an_interrupt():
    done = in_a_process("os.kill(os.getpid(), signal.SIGTERM)")
    assert done.returncode == 130
    assert done.stderr.splitlines()[1:] == ["error: interrupted; repeat the command to resume"]


def test_a_run_says_where_it_is_kept_before_anything_heavy_is_imported():
    heavy = "print([name for name in ('torch', 'numpy', 'openmm', 'scipy') if name in sys.modules])"
    done = in_a_process(heavy, "--out", "somewhere")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"{FIRST_WORDS} somewhere; loading what it needs")


def test_default_folder_follows_from_system_preset_and_seed():
    assert SolvationConfig(preset="paper", seed=3).folder == Path("runs/solvation-aldp-paper-seed3")

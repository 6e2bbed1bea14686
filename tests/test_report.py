import dataclasses
import errno
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from boltzgen_diffclf.errors import NotTrustworthyError, RunFailedError
from tests.report_example import report, result
from workflows.report.advice import recommend, yardstick_row
from workflows.report.data import ReportData
from workflows.report.page import write_report
from workflows.report.rounding import count, with_error
from workflows.report.summary import print_summary, table_rows
from workflows.results import is_finite
from workflows.solvation import SolvationConfig, run

PNG = b"\x89PNG\r\n\x1a\n"
OUTSIDE = re.compile(r"https?://|url\(|@import|//[a-z]", re.IGNORECASE)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.styles, self._open = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split()).replace("−", "-")

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        (self.styles if self._open[-1:] == ["style"] else self.words).append(data)

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    page = write_report(report(), folder)
    return folder, Page(page.read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_outside(written):
    _, page = written
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "style"):
            assert not OUTSIDE.search(attributes.get(name) or "") or attributes[name].startswith(
                "data:image/png;base64,"
            )
    assert not OUTSIDE.search(" ".join(page.styles))
    assert not page._open


def test_every_figure_is_inlined_with_a_text_and_lies_beside_the_page(written):
    folder, page = written
    files = {path.name for path in (folder / "figures").iterdir()}
    expected = {
        "total-comparison",
        "total-work",
        "total-overlap",
        "total-integrand",
        "polar-comparison",
        "polar-work",
    }
    expected |= {"polar-overlap", "nonpolar-comparison", "training", "ramachandran"}
    assert files == {f"{name}.png" for name in expected}
    assert all((folder / "figures" / name).read_bytes().startswith(PNG) for name in files)
    assert len(page.images()) == len(files)
    assert all(image["alt"] for image in page.images())


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def test_every_number_of_the_json_is_on_the_page(written):
    _, page = written
    told, _, whole = page.text.partition("All numbers, as in results.json")
    for leaf in leaves(json.loads(result().to_json())):
        if isinstance(leaf, int | float | str) and leaf != "":
            assert " ".join(str(json.dumps(leaf) if isinstance(leaf, bool | float) else leaf).split()) in whole
    for leg in result().legs.values():
        for name, row in leg.estimators.items():
            assert name in told
            if is_finite(row):
                assert with_error(row.value_kT, row.stderr_kT) in told
                assert count(row.energy_evaluations) in told


def test_the_row_that_decides_is_the_yardstick_of_the_whole_page(tmp_path):
    leg = result().legs["total"]
    bar = leg.estimators["bar"]
    decides = dataclasses.replace(bar, value_kT=-22.3900, stderr_kT=0.0150)
    leg = dataclasses.replace(leg, estimators={"mbar": decides, **leg.estimators})
    assert yardstick_row("total", leg) == "mbar"
    page = Page(
        write_report(ReportData(dataclasses.replace(result(), legs={"total": leg})), tmp_path).read_text("utf-8")
    )
    assert "Use the classical route, mbar" in page.text
    apart = f"{bar.value_kT - decides.value_kT:+.3f}"
    assert apart in page.text[: page.text.index("All numbers")]
    # Without it, no row whose overlap does not let its error bar be believed.
    alone = dataclasses.replace(leg, estimators={"bar": dataclasses.replace(bar, overlap=0.001, stderr_kT=1e-6)})
    assert yardstick_row("total", alone) is None
    assert yardstick_row("total", dataclasses.replace(leg, estimators=dict(result().legs["total"].estimators))) == "bar"


def test_the_first_line_is_the_answer_with_its_sign_in_words(written):
    _, page = written
    body = page.text[page.text.index("Solvation free energy of aldp at") :]
    assert "F(implicit) - F(vacuum) = -22.4063 ± 0.0091 kT = -55.889 ± 0.023 kJ/mol" in body[:200]
    assert "-13.3578 ± 0.0054 kcal/mol" in body[:250]
    assert "more stable in the state “implicit”" in body
    assert "Use the classical route, bar" in body
    assert body.count("-29.430 ± 0.010") == 1
    assert "python -m workflows.solvation --system aldp --seed 7" in body


def test_an_untrustworthy_run_says_so_first_and_names_no_value(tmp_path):
    page = Page(
        write_report(ReportData(result(("the walkers disagree <badly>",))), tmp_path).read_text(encoding="utf-8")
    )
    start = page.text.index("Not trustworthy")
    assert "total: the walkers disagree <badly>" in page.text[start : start + 200]
    assert "-22.4063" not in page.text[: page.text.index("Which route to use")]
    assert "Neither route should be used as it stands" in page.text


def test_a_partial_run_still_renders(tmp_path):
    leg = dataclasses.replace(result().legs["total"], estimators={}, headline=None, reasons=("nothing was run",))
    partial = dataclasses.replace(result(), legs={"total": leg}, trustworthy=False, reasons=("nothing was run",))
    page = Page(write_report(ReportData(partial), tmp_path).read_text(encoding="utf-8"))
    assert page.images() == []
    assert "No route gave a value" in page.text


def test_one_kind_of_route_gets_no_recommendation(tmp_path):
    only = {"bar": result().legs["total"].estimators["bar"]}
    leg = dataclasses.replace(result().legs["total"], estimators=only, headline=None)
    page = write_report(ReportData(dataclasses.replace(result(), legs={"total": leg})), tmp_path).read_text()
    assert "Only one kind of route was run (bar" in page


def with_learned(**rows):
    """Return the total leg with these (value, error) pairs as its learned rows, beside BAR at -22.4063 +- 0.0091."""
    leg = result().legs["total"]
    template = leg.estimators["dsm_diffclf"]
    learned = {
        name: dataclasses.replace(template, value_kT=value, stderr_kT=stderr) for name, (value, stderr) in rows.items()
    }
    return dataclasses.replace(leg, estimators={"bar": leg.estimators["bar"], **learned})


def test_a_row_that_is_far_off_is_not_recommended_and_its_distance_is_told():
    text = recommend("total", with_learned(learned_ais=(-22.3, 0.001), dsm_diffclf=(-22.41, 0.005)))
    assert text.startswith("Use the learned route, dsm_diffclf")
    assert "Not to be used, however small their error bars, because they are off bar: learned_ais (" in text
    assert "learned_ais (+0.106 kT, 11.6 combined errors)" in text
    assert "learned_ais gives" not in text


def test_no_learned_row_is_recommended_where_all_are_far_off():
    text = recommend("total", with_learned(learned_ais=(-22.3, 0.001), dsm_diffclf=(-22.37, 0.005)))
    assert text.startswith("Use the classical route, bar: no learned row lies within 2 combined errors of it")
    assert "dsm_diffclf (+0.036 kT, 3.5 combined errors)" in text


def test_an_untrusted_leg_names_rows_that_are_off_too():
    leg = dataclasses.replace(with_learned(dsm_diffclf=(-22.3, 0.001)), headline=None)
    text = recommend("total", leg)
    assert text.startswith("Neither route")
    assert "dsm_diffclf (+0.106 kT" in text


def test_a_near_row_comes_without_a_warning():
    assert "Not to be used" not in recommend("total", with_learned(dsm_diffclf=(-22.41, 0.005)))


def test_the_page_says_what_effective_samples_and_seconds_are(written):
    _, page = written
    assert page.text.count("mbar, fep: Kish's effective size of the weights") == 3
    assert "never more than the independent frames of both ends" in page.text
    assert "10 min 12 s: every stage as long as it took when it was computed" in page.text


def test_the_same_result_gives_the_same_bytes(tmp_path, written):
    folder, _ = written
    again = write_report(report(), tmp_path)
    assert again.read_bytes() == (folder / "report.html").read_bytes()


def test_figures_stand_missing_values(tmp_path):
    holes = report()
    pmf = holes.ramachandran[0]
    empty = dataclasses.replace(pmf, stderr=np.full_like(pmf.stderr, np.nan))
    write_report(dataclasses.replace(holes, ramachandran=(empty,), legs={}), tmp_path)
    assert (tmp_path / "figures" / "ramachandran.png").read_bytes().startswith(PNG)


def test_the_summary_gives_the_page_numbers_in_plain_ascii(tmp_path):
    out = io.StringIO()
    print_summary(result(), tmp_path / "report.html", out)
    text = out.getvalue()
    assert text.isascii()
    assert "total: F(implicit) - F(vacuum) = -22.4063 +- 0.0091 kT = -55.889 +- 0.023 kJ/mol" in text
    assert "computed in 10 min 12 s, stages of earlier starts included" in text
    assert "FEAT reference (MBAR, 11 states)" in text
    assert text.rstrip().endswith("report.html")
    for leg in result().legs.values():
        for row in table_rows(leg):
            assert all(cell in text for cell in row)


def test_the_summary_draws_tables_on_a_terminal(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    print_summary(result(("why",)), tmp_path / "report.html", out)
    assert "NOT TRUSTWORTHY" in out.getvalue()
    assert "─" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [
        (-22.40612, 0.0093, "-22.4061 ± 0.0093"),
        (-22.40612, 0.43, "-22.41 ± 0.43"),
        (7.0, 12.0, "7.00 ± 12.00"),
        (1.0, 3e-9, "1.000000 ± 3.0e-09"),
        (13.9999921, 3.2e-6, "13.999992 ± 3.2e-06"),
        (2.318e-7, 4.1e-8, "2.32e-07 ± 4.1e-08"),
        (-2.318e-7, 0.0, "-2.32e-07 ± 0.000"),
        (2.318e-7, None, "2.32e-07 ± –"),
        (2.318e-7, 0.12, "0.00 ± 0.12"),
        (1e-9, 2e-7, "1e-09 ± 2.0e-07"),
        (0.0, 2e-7, "0.000000 ± 2.0e-07"),
        (0.25, 0.000021, "0.250000 ± 0.000021"),
        (float("nan"), 1.0, "–"),
        (1.5, float("inf"), "1.500 ± –"),
    ],
)
def test_values_are_rounded_to_their_error(value, stderr, expected):
    assert with_error(value, stderr) == expected


def test_run_writes_everything_before_it_says_not_trustworthy(tmp_path, monkeypatch, capsys):
    from workflows import solvation_pipeline

    def give(*reasons):
        monkeypatch.setattr(solvation_pipeline, "solve", lambda config, folder, device: ReportData(result(*reasons)))

    give(("the walkers disagree",))
    with pytest.raises(NotTrustworthyError, match="the walkers disagree"):
        run(SolvationConfig(out=tmp_path))
    assert json.loads((tmp_path / "results.json").read_text())["trustworthy"] is False
    assert {"results.json", "report.html", "figures", "config.toml", "run.log"} <= set(os.listdir(tmp_path))
    assert "NOT TRUSTWORTHY" in capsys.readouterr().out
    give()
    assert run(SolvationConfig(out=tmp_path)).trustworthy


def test_a_full_disk_keeps_the_old_page(tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFailedError, match="No space left"):
        write_report(ReportData(result()), tmp_path)
    assert (tmp_path / "report.html").read_text() == "old"

"""Every figure of a table has one source: the pages show what the files of results say."""

import re
from collections import Counter

import pytest
from helpers import ROOT

import pack
import preprocess_mesh
import reconstruct
import view
from benchmarks.records import RESULTS, Table, processor, read, write
from docs.docstrings import PAGE, with_docstrings
from docs.tables import PAGES, names_on, with_tables
from options import table

FILES = sorted(RESULTS.glob("*.json"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_shows_what_its_files_say(path):
    page = path.read_text()
    assert len(re.findall("<!-- /?table", page)) == 2 * len(re.findall("<!-- table: .* -->\n", page))
    assert with_tables(page) == page, "python -m docs.tables writes the tables anew"


def test_the_page_of_python_shows_the_docstrings_of_the_code():
    page = PAGE.read_text()
    assert with_docstrings(page) == page, "python -m docs.docstrings writes them anew"
    assert page.count("```\nfit(signal, folder=None, **options)") == 1


def test_every_file_is_shown_once():
    shown = Counter(name for path in PAGES for name in names_on(path.read_text()))
    assert shown == Counter(path.stem for path in FILES)


def test_a_figure_that_is_edited_by_hand_is_undone():
    page = (ROOT / "docs" / "results.md").read_text()
    assert "37.09 dB" in page
    assert with_tables(page.replace("37.09 dB", "47.09 dB")) == page


def test_a_marker_that_names_no_file_is_refused():
    with pytest.raises(FileNotFoundError, match="no_such_table"):
        with_tables("<!-- table: no_such_table -->\n<!-- /table -->")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_whole_and_say_where_they_come_from(path, tmp_path):
    table = read(path)
    assert table.title
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", table.date)
    assert bool(table.command) != bool(table.source)
    assert table.hardware or table.source
    assert table.rows
    assert all(len(row) == len(table.columns) for row in table.rows)
    write(tmp_path / "again.json", table)
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_changed_cell_changes_one_line(tmp_path):
    table = Table("speeds", ["network", "speed"], [["small", "1"], ["large", "2"]])
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    write(before, table)
    table.rows[1][1] = "3"
    write(after, table)
    lines = zip(before.read_text().splitlines(), after.read_text().splitlines(), strict=True)
    assert [pair for pair in lines if pair[0] != pair[1]] == [('    ["large", "2"]', '    ["large", "3"]')]


def test_the_processor_is_told_with_its_generation(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("cpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n")
    assert processor(cpuinfo) == "AMD EPYC (family 25 model 1, AVX2)"
    assert processor(tmp_path / "absent")


def test_every_option_is_explained_in_the_usage():
    page = (ROOT / "docs" / "usage.md").read_text()
    options = {name for parser in (table, preprocess_mesh) for name in vars(parser.make_parser().parse_args([]))}
    for program in (reconstruct, pack, view):
        options |= vars(program.make_parser().parse_args(["ckpts"])).keys() - {"ckpts"}
    assert [name for name in options if f"`--{name}`" not in page] == []

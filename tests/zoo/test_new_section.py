"""A section is one file: a new one appears in report, page and card, and is verified, without a change elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

SECTION = '''
"""Share of the reported patients who are positive."""

from typing import ClassVar, Self

from mil.report.evaluation import Evaluation
from mil.report.schema import Estimate, Section, Sentence
from mil.stats.proportions import proportion


class ShareOfPositives(Section):
    """How many of the reported patients are positive."""

    key: ClassVar[str] = "share_of_positives"
    title: ClassVar[str] = "Share of positives"
    explanation: ClassVar[str] = "How many of the reported patients are positive."
    not_applicable: ClassVar[str] = "There is no yes-or-no question."
    position: ClassVar[int] = 65

    share: Estimate
    verdict: Sentence = "positives are rare"

    @classmethod
    def compute(cls, evaluation: Evaluation) -> Self | None:
        if not evaluation.questions:
            return None
        truth = evaluation.questions[0].truth(evaluation.reported)
        return cls(share=proportion(int(truth.sum()), len(truth)))
'''
SCRIPT = """
import json
import sys
from pathlib import Path

from mil import checkpoint, files, manifest
from mil.report import sections

run, out, folder = map(Path, sys.argv[1:])
sections.__path__.append(str(folder))

from mil.runs import describe
from mil.zoo import release
from mil.zoo import verify as verification
from mil.zoo.verify import verify

describe.draw_figures = release.draw_figures = lambda *_: None  # most of the time, and not of sections
verification.redrawn_problems = lambda *_: iter(())
describe.describe_run(run)
place = release.release(run, "1.0.0", out)
sound = verify(place)
report = files.read_json(place / "report.json")
share = report["sections"]["share_of_positives"]["share"]
share["low"] = 0.0
files.write_json(place / "report.json", report)
checkpoint.seal(place, manifest.parsed((place / checkpoint.MANIFEST).read_bytes()))
print(json.dumps({"place": str(place), "sound": sound, "forged": verify(place), "value": share["value"]}))
"""


def test_a_section_in_a_new_file_is_in_report_page_and_card_and_is_verified(crc_run: Path, tmp_path: Path) -> None:
    (tmp_path / "sections").mkdir()
    (tmp_path / "sections" / "share_of_positives.py").write_text(SECTION)
    run = shutil.copytree(crc_run, tmp_path / "run")
    arguments = [str(run), str(tmp_path / "out"), str(tmp_path / "sections")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["sound"] == []
    assert any(
        line.startswith("report.json: sections.share_of_positives.share.low is 0.0") for line in result["forged"]
    )
    place = Path(result["place"])
    page, card = ((place / name).read_text(encoding="utf-8") for name in ("report.html", "README.md"))
    for text in ("Share of positives", "How many of the reported patients are positive.", f"{result['value']:.3f}"):
        assert text in page
        assert text in card
    assert "Positives are rare" in card
    assert "`report.json: run.sections.share_of_positives.share`" in card

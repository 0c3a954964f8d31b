"""The example of docs/retries-and-isolation.md runs."""

import re
from pathlib import Path

from tests.worker.pool import PATH, Pool

PAGE = Path(__file__).parents[2] / "docs" / "retries-and-isolation.md"


def test_the_example_runs_in_a_process_of_its_own(pool: Pool, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.S)
    (tmp_path / "rendering.py").write_text(code)
    pool.worker(app="rendering:app", env={"PYTHONPATH": f"{tmp_path}:{PATH}"})
    assert pool.submit("render", page="one").result(60) == {"page": "one", "exit_code": 0}

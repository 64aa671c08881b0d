"""The README's table of faults is what the tests of faults tried: it comes last, after all of them."""

import pytest
from reliability import Faults, in_readme, write_into_readme


@pytest.mark.last
def test_the_readme_says_what_was_tried(request: pytest.FixtureRequest, faults: Faults):
    if reason := faults.missing(request.session, request.node):
        pytest.skip(f"the README's table is of all tests of faults: {reason}")
    if request.config.getoption("--write-reliability"):
        write_into_readme(faults.table())
    assert in_readme() == faults.table(), "pytest tests/test_faults_*.py --write-reliability writes it"

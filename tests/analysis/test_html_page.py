"""A page that is one file: nothing fetched, and no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from easyedit_split.analysis.html_page import in_script, page

NASTY = "</script><script>window.broken = 1</script><!-- & \u2028"


def test_data_cannot_end_their_block() -> None:
    text = in_script({"a": NASTY, "b": [1.5, None]})
    assert not set("<>&") & set(text) and json.loads(text) == {"a": NASTY, "b": [1.5, None]}


def test_the_policy_names_the_one_script_that_may_run() -> None:
    whole = page(NASTY, ["<p>part</p>"], {"a": NASTY})
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", whole, flags=re.S)
    assert [attributes.strip() for attributes, _ in scripts] == ['type="application/json" id="data"', 'type="module"']
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in whole and "default-src 'none'" in whole
    assert not re.search(r"^(import|export) ", scripts[1][1], flags=re.M)
    assert "innerHTML" not in whole and "insertAdjacentHTML" not in whole


def test_a_page_without_data_has_no_script() -> None:
    whole = page("title", ["<p>part</p>"])
    assert "<script" not in whole and "script-src 'none'" in whole

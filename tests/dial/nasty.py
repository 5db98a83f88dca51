"""Texts that break a page which does not escape them: whoever runs them leaves `window.broken`."""

NASTY = "<script>window.broken = 1</script>"
CONCEPT = "<img src=x onerror='window.broken = 2'>\"&amp;"
FOLDER = "<img src=x onerror='window.broken = 3'>&amp;"

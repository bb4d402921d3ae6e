"""healthy.py URL [METRIC]: exit code 0 if the page answers 200, and shows METRIC where one is named."""

import sys
from urllib.request import urlopen

url, *metric = sys.argv[1:]
with urlopen(url, timeout=4) as answer:  # noqa: S310 - an address of this container's own
    page = answer.read().decode()
names = {line.split()[0] for line in page.splitlines() if line and not line.startswith("#")}
sys.exit(not names.issuperset(metric))

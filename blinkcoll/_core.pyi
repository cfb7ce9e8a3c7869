# The compiled core; its callers in Python give its functions their types.
from typing import Any

def __getattr__(name: str) -> Any: ...

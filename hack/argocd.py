"""The health that Argo CD would show for an object: the chart's script, run by a real Lua.

Argo CD runs such scripts with the standard library closed, so this one gets nothing but `ipairs`.
"""

from pathlib import Path
from typing import Any

import lupa.lua51 as lua

SCRIPT = Path(__file__).resolve().parent.parent / "charts" / "tuningfork" / "files" / "argocd" / "health.lua"
"""One script for all kinds."""
_RUN = "function(code, env) local f = assert(loadstring(code)); setfenv(f, env); return f() end"


def health(manifest: dict[str, Any]) -> dict[str, str]:
    """Status and message."""
    runtime = lua.LuaRuntime(unpack_returned_tuples=True)
    closed = runtime.table_from({"obj": manifest, "ipairs": runtime.globals().ipairs}, recursive=True)
    return dict(runtime.eval(_RUN)(SCRIPT.read_text(), closed))

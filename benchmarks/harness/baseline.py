"""`baseline.json`: metrics by section, row and name, and what they were measured with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .metric import Metric, Table
from .versions import processor, versions

PATH = Path(__file__).parents[1] / "baseline.json"


@dataclass(frozen=True)
class Baseline:
    """The sections, and the packages and the processor of the process that wrote them."""

    sections: Mapping[str, Table]
    versions: Mapping[str, str] = field(default_factory=versions)
    processor: str = field(default_factory=processor)

    def write(self, path: Path = PATH) -> None:
        """One line a metric, so that a difference of two files reads well."""
        sections = {
            section: {
                row: {name: metric.asdict() for name, metric in metrics.items()}
                for row, metrics in table.items()
            }
            for section, table in self.sections.items()
        }
        head = {"versions": dict(self.versions), "processor": self.processor}
        path.write_text(_text({**head, **sections}) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path = PATH) -> "Baseline":
        content = json.loads(path.read_text("utf-8"))
        known, named = content.pop("versions"), content.pop("processor")
        sections = {
            section: {
                row: {name: Metric.fromdict(data) for name, data in metrics.items()}
                for row, metrics in table.items()
            }
            for section, table in content.items()
        }
        return cls(sections, known, named)

    def differences(self) -> list[str]:
        """In words, what is not as it was when the baseline was written."""
        here = {**versions(), "processor": processor()}
        before = {**self.versions, "processor": self.processor}
        return [
            f"{name} {before.get(name, 'unknown')} -> {value}"
            for name, value in here.items()
            if before.get(name) != value
        ]


def _text(content: dict[str, Any], depth: int = 0) -> str:
    if not any(isinstance(value, dict) for value in content.values()) and depth > 2:
        return json.dumps(content)
    indent = " " * (depth + 1)
    lines = [
        f"{indent}{json.dumps(name)}: "
        + (_text(value, depth + 1) if isinstance(value, dict) else json.dumps(value))
        for name, value in content.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"

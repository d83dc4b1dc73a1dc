"""The tags that every taggable resource carries."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infra.settings import DataClass


@dataclass(frozen=True)
class Tags:
    """Required tags of one stack; costs, ownership and handling of data are read off them."""

    project: str
    stack: str
    owner: str
    cost_centre: str
    data_class: DataClass

    def named(self, name: str, **extra: str) -> dict[str, str]:
        """Tags of one resource, with the name that the console shows and ``extra`` ones (such as ``backup``)."""
        return {
            "project": self.project,
            "stack": self.stack,
            "owner": self.owner,
            "cost-centre": self.cost_centre,
            "data-class": self.data_class.value,
            "Name": f"{self.project}-{self.stack}-{name}",
            **extra,
        }

    def holding(self, data_class: DataClass) -> Tags:
        """The same tags for resources that hold data of another class."""
        return replace(self, data_class=data_class)

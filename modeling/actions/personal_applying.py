"""A dataset's next version under the policy for personal data as it is now: the same people and rows, texts masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import dataset_versions
from modeling.actions.dataset_versions import Asked
from modeling.actions.personal_policy import policy_of_tenant
from modeling.actions.version_writing import BYTES_AT_ONCE, Group, Tally
from modeling.core.columns import ColumnFacts
from modeling.core.personal_rows import Screening, chosen_columns
from modeling.core.segments import FRAME_ROWS_BYTES, pack_row
from modeling.core.tables import FileRefused, Row
from modeling.models import Dataset, DatasetVersion, VersionChange
from modeling.rows import layout_of, open_rows, within
from modeling.units import handle_key, row_digest
from saas.lib.errors import Refusal
from tenants.audit import Actor
from tenants.models import Tenant

_ROWS_AT_ONCE = 2_000
Found = Mapping[str, Any]


def start(tenant: Tenant, actor: Actor, dataset: Dataset) -> VersionChange:
    """Ask for the next version; a worker makes it. Inside the scope. Raises what dataset_versions.start does."""
    return dataset_versions.start(tenant, actor, dataset, Asked(DatasetVersion.Mode.MASK))


class Masking:
    """Rows of the former version as groups to seal; `counts`, `tally` and `found` are whole once all were drawn.

    Handles stay, and so do the marks by which lineages are joined: those of the rows before and after.
    """

    def __init__(self, tenant: Tenant, base: DatasetVersion, *, tick: Callable[[int], None]) -> None:
        dataset, columns = base.dataset, layout_of(base).columns
        self._base, self._tick = base, tick
        self._key = handle_key(tenant)
        with within(tenant.pk):
            held = policy_of_tenant(tenant)
        facts = [ColumnFacts(**one) for one in base.schema["columns"]]
        self._screening = Screening(held.policy, chosen_columns(facts, dataset.columns, held.columns))
        places = {name: at for at, name in enumerate(columns)}
        label, unit = dataset.columns.get("label", ""), dataset.unit_column
        self.tally = Tally(tenant, columns, label_at=places.get(label), unit_at=places.get(unit))
        self.counts: Counter[str] = Counter()
        self.stay_erased: set[bytes] = set()

    def groups(self) -> Iterator[Group]:
        """Handles and their packed rows, in the order of the former version. Raises Refusal."""
        try:
            yield from self._groups()
        except FileRefused as refused:
            place = {"line": refused.error.line, "column": refused.error.column}
            where = _("Line %(line)s, column %(column)s: ") % place
            raise Refusal(where + refused.message, code=refused.code, status=409) from None
        if not self.counts["rows_changed"]:
            raise Refusal(
                _("Nothing would change: your policy finds nothing to mask here."), code="nothing_changed"
            )

    def _groups(self) -> Iterator[Group]:
        handle, packed, size = b"", list[bytes](), 0
        for owner, row in self._rows():
            if packed and (owner != handle or size >= FRAME_ROWS_BYTES):
                yield handle, packed
                packed, size = [], 0
            handle = owner
            packed.append(pack_row(row.line, row.values, row.raw))
            size += len(packed[-1])
        if packed:
            yield handle, packed

    def _rows(self) -> Iterator[tuple[bytes, Row]]:
        waiting: list[tuple[bytes, Row]] = []
        done = size = 0
        for pair in open_rows(self._base):
            waiting.append(pair)
            size += sum(len(value) if isinstance(value, str) else 64 for value in pair[1].values)
            if len(waiting) >= _ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                done += len(waiting)
                yield from self._screened(waiting)
                self._tick(done)
                waiting, size = [], 0
        yield from self._screened(waiting)

    def _screened(self, pairs: list[tuple[bytes, Row]]) -> Iterator[tuple[bytes, Row]]:
        piece = next(iter(self._screening.pieces(iter([[row for _, row in pairs]]))))
        assert isinstance(piece, list)
        for (handle, former), row in zip(pairs, piece, strict=True):
            self.tally.add(row.line, row.values, row_digest(self._key, former.values))
            if row is not former:
                self.tally.note_mark(row_digest(self._key, row.values))
                self.counts["rows_changed"] += 1
            yield handle, row

    def found(self) -> dict[str, Any]:
        """What was found, and what was masked in the versions before."""
        return self._screening.findings.as_json()


def found_in(joining: Any, base: DatasetVersion, source: DatasetVersion | None) -> dict[str, Any]:
    """What the page of a made version says: its own findings, or those of the versions that its rows come from."""
    if isinstance(joining, Masking):
        return joining.found()
    parts: list[Found] = [
        one.personal_data for one in (base, source) if one is not None and one.personal_data
    ]
    if len(parts) < 2:
        return dict(parts[0]) if parts else {}
    first, second = parts
    columns = dict.fromkeys([*first["found"], *second["found"]])
    found = {
        name: dict(Counter(first["found"].get(name, {})) + Counter(second["found"].get(name, {})))
        for name in columns
    }
    summed = {name: first[name] + second[name] for name in ("rows_masked", "rows_reported")}
    return {
        **second,
        "columns": list(dict.fromkeys([*first["columns"], *second["columns"]])),
        "found": found,
        **summed,
    }

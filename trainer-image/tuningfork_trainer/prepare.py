"""The prepare stage: sources become token sequences in three splits, with an account of every row.

It needs the tokeniser and the config of the model, not its weights, so it runs on a CPU before anything is sized. The folder
``prepared/`` holds the splits (messages for a reader, tokens and answer spans for training), ``removed.jsonl`` with one line for
each row that was left out, and ``data.json``.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuningfork.api.artifacts import DATA_REPORT, PREPARED, PreparedData
from tuningfork.api.finetunejob import DataStatus, FineTuneJobSpec
from tuningfork_trainer.chat import ChatEncoder, Encoded
from tuningfork_trainer.cleaning import Duplicates, clean_turns, fingerprint
from tuningfork_trainer.errors import DataNotFound, DataUnusable, DigestMismatch, ObjectNotFound
from tuningfork_trainer.folders import fetch_folder, read_manifest, save_folder
from tuningfork_trainer.formats import check_turns, convert
from tuningfork_trainer.model import BaseModel
from tuningfork_trainer.rows import Ledger, Removal, Removed, Row, Turn, read_rows
from tuningfork_trainer.splitting import split_examples
from tuningfork_trainer.store import ObjectStore, open_object

log = logging.getLogger(__name__)

KIND = "prepared"
SHOWN = 3
"""Removed rows of each reason that the log names."""


@dataclass(frozen=True)
class Example:
    """A row that is kept."""

    source: str
    line: int
    turns: list[Turn]
    encoded: Encoded
    key: str


def load_or_make_prepared(
    spec: FineTuneJobSpec, model: BaseModel, encoder: ChatEncoder, output: ObjectStore, workdir: Path
) -> PreparedData:
    """The prepared data in ``workdir/prepared``, found in the output or made now."""
    store, folder = output.at(PREPARED), workdir / PREPARED
    try:
        manifest = read_manifest(store)
        if manifest and manifest.attributes.get("model") == model.fingerprint():
            fetch_folder(store, manifest, folder)
            log.info("data: prepared before, digests verified")
            return _read_report(folder, manifest.digest())
        if manifest:
            log.warning(
                "data: the model's tokenizer or config has changed since the data was prepared; preparing again"
            )
    except (DigestMismatch, ObjectNotFound) as error:
        log.warning("data: the prepared data is damaged (%s); preparing again", error)
    sources = fetch_sources(spec, workdir / "data")
    shutil.rmtree(folder, ignore_errors=True)
    prepared = prepare(spec, model, encoder, sources, folder)
    manifest = save_folder(store, folder, KIND, {"model": model.fingerprint(), "examples": prepared.data.kept})
    return _read_report(folder, manifest.digest())


def fetch_sources(spec: FineTuneJobSpec, folder: Path) -> dict[str, Path]:
    """Downloads every source; raises `DataNotFound`."""
    found = {}
    for index, source in enumerate(spec.data.sources):
        store, name = open_object(source.uri)
        target = folder / f"{source.name}{Path(name).suffix}"
        try:
            store.download(name, target)
        except ObjectNotFound as error:
            raise DataNotFound(
                f"spec.data.sources[{index}].uri: {source.uri} does not exist; upload it, or correct the URI"
            ) from error
        found[source.name] = target
    return found


def prepare(
    spec: FineTuneJobSpec, model: BaseModel, encoder: ChatEncoder, sources: Mapping[str, Path], folder: Path
) -> PreparedData:
    """Reads, cleans, encodes, splits and writes; raises `DataUnusable` when there is nothing to train on or to test with."""
    ledger, redacted, formats, examples = Ledger(), Counter[str](), dict[str, Counter[str]](), list[Example]()
    limit = sequence_limit(spec, model.config())
    duplicates = Duplicates()
    for source in spec.data.sources:
        seen = formats.setdefault(source.name, Counter())
        for row in read_rows(source.name, sources[source.name], ledger):
            try:
                example = _keep(row, spec, encoder, limit, duplicates, seen, redacted)
            except Removed as cause:
                ledger.remove(row.source, row.line, cause)
            else:
                ledger.kept += 1
                examples.append(example)
    ledger.close()
    _log_removed(ledger)
    if not examples:
        raise DataUnusable(_why_unusable("no usable example is left", ledger, limit))
    parts = split_examples([example.key for example in examples], spec.data.split)
    if spec.data.split.test and not parts.test:
        raise DataUnusable(
            _why_unusable("one usable example is left, too few for a train and a test split", ledger, limit)
        )
    for name, positions in parts._asdict().items():
        _write_lines(folder / f"{name}.jsonl", (_as_line(examples[i]) for i in positions))
    _write_lines(folder / "removed.jsonl", (row._asdict() for row in ledger.removed))
    prepared = PreparedData(
        data=DataStatus(
            read=ledger.read,
            kept=ledger.kept,
            removed=ledger.by_reason(),
            redacted=dict(sorted(redacted.items())),
            train=len(parts.train),
            validation=len(parts.validation),
            test=len(parts.test),
            tokens=sum(len(examples[i].encoded.ids) for i in parts.train),
            longest_tokens=max(len(example.encoded.ids) for example in examples),
            formats={name: " and ".join(k for k, _ in seen.most_common()) for name, seen in formats.items()},
        ),
        model_config_=model.config(),
        weight_bytes=sum(model.weight_files().values()),
    )
    (folder / DATA_REPORT).write_text(json.dumps(prepared.dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return prepared


def sequence_limit(spec: FineTuneJobSpec, config: Mapping[str, Any]) -> int:
    """Tokens that an example may have: what the spec says, and never more than the model has positions."""
    positions = config.get("max_position_embeddings")
    wanted = spec.training.max_sequence_length
    return min(wanted, positions) if isinstance(positions, int) else wanted


def load_examples(folder: Path, split: str) -> list[Encoded]:
    """A split of a prepared folder."""
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Encoded(row["ids"], [(start, end) for start, end in row["answers"]]) for row in rows]


def _keep(
    row: Row,
    spec: FineTuneJobSpec,
    encoder: ChatEncoder,
    limit: int,
    duplicates: Duplicates,
    formats: Counter[str],
    redacted: Counter[str],
) -> Example:
    """One row's way through the stage; raises `Removed`."""
    declared = next(s.format for s in spec.data.sources if s.name == row.source)
    found, turns = convert(row.value, declared)
    formats[found] += 1
    pieces = Counter[str]()
    turns = check_turns(clean_turns(turns, spec.data.cleaning.redact_pii, pieces))
    key = fingerprint(turns)
    duplicates.check(key, row.source, row.line)
    encoded = encoder.encode(turns)
    if len(encoded.ids) > limit:
        raise Removed(Removal.TOO_LONG, f"{len(encoded.ids)} tokens, the limit is {limit}")
    redacted.update(pieces)
    return Example(row.source, row.line, turns, encoded, key)


def _why_unusable(what: str, ledger: Ledger, limit: int) -> str:
    """The sentence of a `DataUnusable`: counts by reason, one example, the fix."""
    if not ledger.read:
        return "spec.data.sources: there is not one row in the files; check what was uploaded"
    counts = ledger.by_reason()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda c: -c[1]))
    if not counts:
        return f"spec.data.sources: {what} of {ledger.read} rows read; add examples"
    commonest = max(counts, key=lambda reason: counts[reason])
    example = next(row for row in ledger.removed if row.reason == commonest)
    advice = (
        "raise spec.training.maxSequenceLength or shorten them" if commonest == Removal.TOO_LONG else "correct the rows"
    )
    return (
        f"spec.data.sources: {what} of {ledger.read} rows read ({reasons}); for example {example.source} line {example.line}: "
        f"{example.detail}; {advice}"
    )


def _log_removed(ledger: Ledger) -> None:
    for reason, count in ledger.by_reason().items():
        rows = [row for row in ledger.removed if row.reason == reason][:SHOWN]
        where = "; ".join(f"{row.source} line {row.line}: {row.detail}" for row in rows)
        log.info("data: %s rows removed, %s (%s%s)", count, reason, where, "; ..." if count > SHOWN else "")


def _as_line(example: Example) -> dict[str, Any]:
    return {
        "source": example.source,
        "line": example.line,
        "messages": example.turns,
        "ids": example.encoded.ids,
        "answers": example.encoded.answers,
    }


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def _read_report(folder: Path, digest: str) -> PreparedData:
    """data.json with the manifest's digest, which a file inside the folder cannot hold itself."""
    prepared = PreparedData.model_validate_json((folder / DATA_REPORT).read_bytes())
    return prepared.model_copy(update={"data": prepared.data.model_copy(update={"digest": digest})})

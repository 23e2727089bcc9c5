"""The last stage: what lies beside the artifacts, and the manifest that says it all."""

from __future__ import annotations

from dataclasses import replace

from exporter.bundle.readme import bundle_readme
from exporter.bundle.versions import tool_versions
from exporter.bundle.writer import write_manifest
from exporter.stages.run import Run
from exporter.stages.targets import Targets, export_settings
from runtimes.bundle import GOLDEN, digest, read_manifest
from runtimes.types import SCHEMA_VERSION, BundleFile, LedgerRow, Manifest


def finish(targets: Targets, ledger: tuple[LedgerRow, ...], run: Run) -> Manifest:
    """Put golden values, tokenizer, report, README and manifest beside the artifacts.

    Raises BadInput where the manifest would hold what no reader takes.
    """
    options, work, new = run.options, run.work, run.bundle
    final = targets.snapshots[-1]
    artifacts = tuple(proven.artifact for proven in targets.proven if proven.snapshot is final)
    for name in sorted({GOLDEN, *(artifact.golden for artifact in artifacts)}):
        (work / final.folder / name).rename(new / name)
    for file in sorted((work / "files").iterdir()):
        file.rename(new / file.name)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=targets.source.name,
        origin=targets.source.origin,
        signature=final.signature,
        artifacts=artifacts,
        files=(),
        tool_versions=tool_versions(),
        settings=export_settings(options, final),
        recipe=tuple(snapshot.step for snapshot in targets.snapshots if snapshot.step),
        ledger=ledger,
    )
    if ledger:
        from exporter.ledger.limits import not_judged
        from exporter.ledger.report import write_report

        write_report(manifest, new, not_judged(ledger, options.min_speedup))
    (new / "README.md").write_text(bundle_readme(manifest), encoding="utf-8")
    artifact_names = {artifact.path for artifact in artifacts}
    names = sorted(p.name for p in new.iterdir() if p.name not in artifact_names)
    manifest = replace(manifest, files=tuple(BundleFile(name, *digest(new / name)) for name in names))
    write_manifest(manifest, new)
    return read_manifest(new)  # what cannot be read again is not written
